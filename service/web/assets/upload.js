// Uploads: hash the file, ask whether the server has it, and send it only where it has not.
import { ask, keyHeaders, Problem, problemFromText } from "/web/http.js";

/** Return {id, size_bytes, was_here}. `onProgress(words, share)` is told how far it is. */
export async function upload(file, onProgress) {
  const digest = await digestOf(file, (done) => onProgress("Reading", file.size ? done / file.size : 1));
  const id = "sha256:" + Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    return { ...(await (await ask(`/v1/files/${id}`)).json()), was_here: true };
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  onProgress("Sending", 0);
  return { ...(await send(file, digest, (share) => onProgress("Sending", share))), was_here: false };
}

function digestOf(file, onDone) {
  return new Promise((resolve, reject) => {
    const worker = new Worker("/web/digest-worker.js", { type: "module" });
    const end = (settle, value) => {
      worker.terminate();
      settle(value);
    };
    const unreadable = (why) => new Problem({ title: "The file cannot be read", detail: why, fix: "Choose it again." });
    worker.onmessage = ({ data }) => {
      if (data.digest) end(resolve, data.digest);
      else if (data.error) end(reject, unreadable(data.error));
      else onDone(data.done);
    };
    worker.onerror = (event) => end(reject, unreadable(event.message));
    worker.postMessage(file);
  });
}

// By XMLHttpRequest, since fetch does not tell how much is sent.
function send(file, digest, onShare) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    const headers = { "Content-Type": "application/octet-stream", "Content-Digest": `sha-256=:${btoa(String.fromCharCode(...digest))}:`, ...keyHeaders() };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
    request.onload = () =>
      request.status === 201 ? resolve(JSON.parse(request.responseText)) : reject(problemFromText(request.status, request.responseText));
    request.onerror = () => reject(new Problem({ detail: "The connection broke while the file was sent.", fix: "Try again: what is stored is not sent twice." }));
    request.send(file);
  });
}
