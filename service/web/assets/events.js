// What happens to a job, as it happens: server-sent events, read by fetch, since EventSource cannot send a key.
import { ask } from "/web/http.js";

const PAUSE_MS = 2000;

/** Call `onEvent(kind, data)` for every event until the job ends, going on behind the last one after a broken connection. */
export async function follow(path, signal, onEvent) {
  let last = null, isOver = false;
  while (!isOver && !signal.aborted) {
    try {
      const response = await ask(`${path}/events`, { signal, headers: last === null ? {} : { "Last-Event-ID": last } });
      if (response.status === 204) return;
      await read(response.body, ({ id, kind, data }) => {
        last = id ?? last;
        isOver ||= kind === "end";
        onEvent(kind, data);
      });
    } catch (error) {
      if (signal.aborted || (error.status >= 400 && error.status < 500)) return; // the page asks for the job itself anyway
    }
    if (!isOver) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

async function read(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => /^(\w+): ?(.*)$/.exec(line)?.slice(1)).filter(Boolean));
      if (fields.data) onEvent({ id: fields.id ?? null, kind: fields.event ?? "message", data: JSON.parse(fields.data) });
    }
  }
}
