// One job: live while it runs, then its result and its files.
import { caller, mayChange } from "/web/caller.js";
import { fill, h, part, problemBox, say, table, told, toldMeanwhile } from "/web/dom.js";
import { follow } from "/web/events.js";
import { ask, askJson, download } from "/web/http.js";
import { badge } from "/web/jobs.js";
import { nameOf } from "/web/names.js";
import { repeat } from "/web/repeat.js";
import { resultView } from "/web/result.js";
import { sure } from "/web/sure.js";
import { trialsPlot, trialsTable } from "/web/trials.js";
import { bytes, duration, isFinished, moment, percent, speedWords, STAGES, STATES, took } from "/web/words.js";

const SECONDS = 5; // at the latest; events tell of changes at once
const LEAST_MS = 400; // between two looks
const LOG_MS = 100; // between two lines that are drawn: a page that is opened late gets all of them at once
const LOG_BYTES = 200_000;

/** Draw a job and keep it fresh until it is finished. */
export async function jobPage(main, signal, id) {
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  const may = mayChange(await caller(signal));
  const trouble = part((problem) => (problem ? problemBox(problem) : ""));
  const head = part(headView);
  const buttons = part(buttonsView, { class: "buttons" });
  const progress = part(progressView);
  const error = part((problem) => (problem ? problemBox(problem) : ""));
  const hold = part((found) => (found ? holdView(found) : ""));
  const result = part((job) => (job ? section("Result", resultView(job, get)) : ""));
  const plot = part((job) => (job.trials.length ? section("Engines tried", [trialsPlot(job), trialsTable(job), seenNote(job)]) : ""));
  const outputs = part((list) => (list?.length ? section("What the outputs were taken for", h("ul", {}, list.map((output) => h("li", {}, output.in_words)))) : ""));
  const files = part((list) => (list.length ? section("Files", filesTable(list)) : ""));
  const log = part((text) => (text ? section("Log", h("pre", { tabindex: 0, role: "region", "aria-label": "Log", class: "log", "data-tail": true }, text)) : ""));
  const config = part((value) => h("details", {}, h("summary", {}, "Configuration, with every default"), h("pre", { tabindex: 0, "aria-label": "Configuration" }, JSON.stringify(value, null, 2))));
  const lines = [];
  let before = null, filesOf = null, soon = null, logSoon = null;

  const again = await repeat(signal, async () => {
    let job;
    try {
      job = await askJson(path, { signal });
    } catch (problem) {
      if (signal.aborted) return null;
      if (before === null) throw problem;
      trouble.show(toldMeanwhile(problem));
      return [404, 410].includes(problem.status) ? null : SECONDS;
    }
    trouble.show(null);
    if (before === null) lay();
    show(job);
    if (before !== null && before !== job.state) say(`The job is ${STATES[job.state]?.words ?? job.state}. ${job.result ? speedWords(job.result) : ""}`);
    before = job.state;
    if (!isFinished(job)) return SECONDS;
    if (filesOf !== job.state) await showFiles(job);
    return null;
  });

  if (before !== null && !["succeeded", "failed", "cancelled"].includes(before)) follow(path, signal, happened);

  function happened(kind, data) {
    if (kind === "log") {
      lines.push(data.line);
      logSoon ??= setTimeout(() => {
        logSoon = null;
        if (filesOf === null) log.show(lines.join("\n").slice(-LOG_BYTES));
      }, LOG_MS);
    } else {
      soon ??= setTimeout(() => {
        soon = null;
        if (!signal.aborted) again();
      }, LEAST_MS);
    }
    if (kind === "best" && data.best > 0) say(`Engine ${data.best} is the best so far.`);
  }

  function lay() {
    fill(main, head.element, buttons.element, trouble.element, hold.element, progress.element, error.element, result.element, plot.element, outputs.element, files.element, log.element, config.element);
  }

  function show(job) {
    head.show({ id: job.id, state: job.state, target: job.target, batch: job.config.batch_size, created: job.created_at, took: took(job) });
    buttons.show({ state: job.state, hasReport: job.state === "succeeded" && !job.branches?.length, engine: job.result?.engine?.name ?? "engine" });
    progress.show(isFinished(job) ? null : { state: job.state, stage: job.stage, progress: job.progress, eta: job.eta_seconds, trials: job.trials.length });
    hold.show(job.hold);
    error.show(job.error);
    result.show(job.result || job.branches?.length ? { id: job.id, result: job.result, config: job.config, branches: job.branches } : null);
    plot.show({ trials: job.trials, best: job.best, config: job.config, result: job.result });
    document.title = `${STATES[job.state]?.words ?? job.state} · ${nameOf(id)} · ONNX-TRT Optimizer`;
    outputs.show(job.outputs);
    config.show(job.config);
  }

  async function showFiles(job) {
    try {
      const list = (await askJson(`${path}/artifacts`, { signal })).artifacts;
      files.show(list);
      filesOf = job.state;
      const found = list.find(({ name }) => name === "log.txt");
      if (found) log.show((await (await ask(found.link, { signal })).text()).slice(-LOG_BYTES));
    } catch (problem) {
      if (!signal.aborted) trouble.show(told(problem));
    }
  }

  function buttonsView({ state, hasReport, engine }) {
    return [
      hasReport ? h("button", { type: "button", class: "main", onclick: () => get(`${path}/engine`, engine) }, "Download the engine") : null,
      hasReport ? h("a", { class: "button", href: `#/jobs/${id}/report` }, "Open the report") : null,
      may && !isFinished({ state }) ? h("button", { type: "button", class: "danger", onclick: cancel }, "Cancel the job") : null,
      may && isFinished({ state }) ? h("button", { type: "button", class: "danger", onclick: remove }, "Delete the job") : null,
    ];
  }

  async function get(from, name) {
    try {
      await download(from, name);
    } catch (problem) {
      trouble.show(told(problem));
    }
  }

  async function cancel() {
    if (!(await sure("Cancel this job?", "It ends for good. What it has measured is lost.", "Yes, cancel it"))) return;
    try {
      await ask(`${path}/cancel`, { method: "POST" });
    } catch (problem) {
      trouble.show(told(problem));
    }
    again();
  }

  async function remove() {
    if (!(await sure("Delete this job?", "The job and all its files are removed for good. What was uploaded stays.", "Yes, delete it"))) return;
    try {
      await ask(path, { method: "DELETE" });
      say("The job is deleted.");
      location.hash = "#/jobs";
    } catch (problem) {
      trouble.show(told(problem));
    }
  }

  function filesTable(list) {
    return table("Files of the job", [
      { title: "Name", cell: ({ name }) => name },
      { title: "Size", cell: ({ size_bytes: size }) => bytes(size), number: true },
      { title: "SHA-256", cell: ({ sha256 }) => h("code", { title: sha256 }, sha256.slice(0, 12)) },
      { title: "Get it", cell: ({ name, link }) => h("button", { type: "button", "aria-label": `Download ${name}`, onclick: () => get(link, name.replaceAll("/", "-")) }, "Download") },
    ], list);
  }
}

const section = (title, content) => h("section", {}, h("h2", {}, title), content);

const seenNote = ({ result }) => (result?.verdict?.selection === "held_out" && result.verdict.method !== "same_engine"
  ? h("p", { class: "note" }, "These scores are of samples that the search saw; those of the result are of others.") : null);

const headView = (job) => [
  h("h1", {}, nameOf(job.id), " ", badge(job)),
  h("p", { class: "note" }, `${job.target}, batch ${job.batch}. Submitted ${moment(job.created)}${job.took === "–" ? "" : `, took ${job.took}`}. Id `, h("code", {}, job.id), "."),
];

function progressView(now) {
  if (now === null) return "";
  const doing = { queued: "Waiting for its turn", on_hold: "Waiting for the server" }[now.state] ?? `Now ${STAGES[now.stage] ?? now.stage ?? "starting"}`;
  return h("section", { "aria-label": "Progress", class: "progress" },
    h("progress", { max: 1, value: now.progress, "aria-label": "Progress of the job" }),
    h("p", {}, `${percent(now.progress, 0)}. ${doing}${now.trials ? `; ${now.trials} ${now.trials === 1 ? "engine" : "engines"} so far` : ""}. `,
      now.eta === null ? "" : `About ${duration(now.eta)} left.`));
}

const holdView = ({ reason, fix }) => h("div", { class: "warning", role: "alert" },
  h("strong", {}, "On hold: the job goes on by itself"), h("p", {}, reason), fix ? h("p", { class: "fix" }, h("span", {}, "What to do: "), fix) : null);
