// Requests to the server: with its key where it wants one, and errors in its own words.

const KEY = "onnx-trt-optimizer-key";
const UNAUTHORIZED = 401;
let asking = null;

/** An answer of the server that is an error (RFC 9457), or no answer. */
export class Problem extends Error {
  constructor({ status = 0, title = "No answer", detail = "", fix = "" }) {
    super(detail);
    Object.assign(this, { status, title, detail, fix });
  }
}

/** Return the headers that carry the key, if there is one. */
export function keyHeaders() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Whether the server was given a key in this tab. */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Return the answer to a request, or throw a Problem. Asks for the key where the server wants one. */
export async function ask(path, options = {}) {
  for (;;) {
    const sent = sessionStorage.getItem(KEY);
    const response = await answered(path, options);
    if (response.ok) return response;
    const problem = await problemFrom(response);
    if (response.status !== UNAUTHORIZED) throw problem;
    if (sessionStorage.getItem(KEY) === sent && !(await askForKey(problem))) throw problem;
  }
}

/** Return the JSON of an answer. */
export async function askJson(path, options = {}) {
  return (await ask(path, options)).json();
}

async function answered(path, options) {
  try {
    return await fetch(path, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: `The server did not answer (${error.message}).`, fix: "See whether it is running, then try again." });
  }
}

async function problemFrom(response) {
  return problemFromText(response.status, await response.text().catch(() => ""));
}

/** Return the problem that a body of this status tells. */
export function problemFromText(status, text) {
  try {
    return new Problem({ status, ...JSON.parse(text) });
  } catch {
    return new Problem({ status, title: `The answer was ${status}`, detail: text.slice(0, 500) });
  }
}

/** Ask for another key, and begin anew with it. */
export async function changeKey() {
  if (await asked("Use another key", "It takes the place of the one that this tab has.")) location.reload();
}

const askForKey = (problem) => asked("This server wants a key", hasKey() ? "The server refused this key." : problem.detail);

function asked(title, reason) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    const field = document.getElementById("key-field");
    document.getElementById("key-title").textContent = title;
    document.getElementById("key-reason").textContent = reason;
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "use" && field.value !== "";
      if (given) sessionStorage.setItem(KEY, field.value);
      field.value = "";
      resolve(given);
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** Save a file of a job. Without a key the browser fetches it by itself, in constant memory. */
export async function download(path, name) {
  if (!hasKey()) return save(path, name);
  const url = URL.createObjectURL(await (await ask(path)).blob());
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function save(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
