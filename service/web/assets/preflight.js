// What the server tells of a model before there is a job: layers, targets, data, time.
import { fill, h, say, table, told } from "/web/dom.js";
import { askJson } from "/web/http.js";
import { duration } from "/web/words.js";

const SAMPLES = 1000; // that the estimate is for

/** Return {element, show(id)}: asks the server of a file it has, and draws the answer; null empties the panel. */
export function preflightPanel() {
  const element = h("section", { class: "preflight", "aria-label": "Before you start" });
  let shown = null;
  const self = {
    element,
    async show(id) {
      shown = id;
      fill(element, id ? h("p", { class: "note" }, "The server reads the model ...") : null);
      if (!id) return;
      let drawn;
      try {
        const found = await askJson(`/v1/files/${id}/preflight?samples=${SAMPLES}`, { method: "POST" });
        drawn = [h("h2", {}, "Before you start"), inWords(found)];
        if (shown === id) say("The server has read the model.");
      } catch (error) {
        const { detail, fix } = told(error);
        const isOurs = !error.status || error.status >= 500; // the same file may be read the next time
        drawn = [h("h2", {}, "Before you start"), h("p", { class: "warning" }, detail, fix ? ` What to do: ${fix}` : ""),
          isOurs ? h("button", { type: "button", onclick: () => self.show(id) }, "Ask again") : null];
      }
      if (shown === id) fill(element, drawn);
    },
  };
  return self;
}

function inWords(found) {
  const counted = (counts) => Object.entries(counts).filter(([, count]) => count).map(([name, count]) => `${name}: ${count}`).join(", ");
  const total = Object.values(found.layers).reduce((sum, count) => sum + count, 0);
  const shape = ({ shape, has_rank }) => (has_rank === false ? "samples, ..." : ["samples", ...shape.slice(1).map((size) => (Number.isInteger(size) ? size : "any"))].join(", "));
  const columns = [
    { title: "Target", cell: ({ target }) => target },
    { title: `Layers of ${total} that may take it`, cell: ({ layers, why_not }) => (why_not ? `not here: ${why_not.replace(/^target '[^']*': /, "")}` : counted(layers) || "none") },
  ];
  const [least, most] = found.job_seconds ?? [];
  return [
    h("p", {}, `${total} layers can take a lower precision (${counted(found.layers)}). Opset ${found.opset}, weights in ${found.float_type}.`),
    table("What each target could do", columns, found.targets),
    h("p", {}, "The samples hold ", found.inputs.map((input, at) => [at ? ", " : "", h("code", {}, input.name), ` as ${input.dtype} (${shape(input)})`]), ", or what is prepared into it; labels, where there are any, in ", h("code", {}, "labels"), "."),
    h("p", {}, found.job_seconds
      ? `A job for onnxruntime-cpu with ${SAMPLES.toLocaleString("en")} samples takes about ${duration(least)} to ${duration(most)} on this server while it does nothing else.`
      : "How long a job takes is not known: the model does not run on made-up input, or takes too long."),
    found.notes.length ? h("ul", { class: "facts" }, found.notes.map((note) => h("li", {}, note))) : null,
  ];
}
