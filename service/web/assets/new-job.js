// The form that starts a job.
import { caller, mayChange } from "/web/caller.js";
import { fill, h, problemBox, say } from "/web/dom.js";
import { fileField } from "/web/file-field.js";
import { askJson, Problem } from "/web/http.js";
import { rememberName } from "/web/names.js";
import { preflightPanel } from "/web/preflight.js";

const BUDGETS = {
  min_relative: { words: "Share of the score to keep", value: 0.99, step: "any", note: "0.99: the engine scores at least 99% of what your model scores." },
  max_drop: { words: "Largest drop of the score", value: 0.005, step: "any", note: "0.005: from 0.762 to 0.757, not lower." },
  min_score: { words: "Least score of the engine", value: 0.9, step: "any", note: "Your model must reach it itself." },
};
const IMAGENET = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
const PICTURES = {
  none: { words: "The files hold arrays as the model takes them", make: () => null },
  imagenet: { words: "Pictures, as torchvision's models take them (resize, crop, ImageNet mean and deviation)",
    make: (size) => ({ resize: { size: [Math.round(size / 0.875)], mode: "shorter_side" }, crop: [size], ...IMAGENET }) },
  unit: { words: "Pictures or bytes, scaled to 0 ... 1", make: (size) => ({ resize: { size: [size, size] }, scale: 1 / 255 }) },
  centred: { words: "Pictures or bytes, scaled to -1 ... 1", make: (size) => ({ resize: { size: [size, size] }, mean: [0.5], std: [0.5] }) },
  own: { words: "Pictures or bytes, with a mean and a deviation of your own", make: (size, mean, std) => ({ resize: { size: [size, size] }, mean, std }) },
};
const NUMBERS = "\\s*\\d*\\.?\\d+(\\s*,\\s*\\d*\\.?\\d+)*\\s*"; // with commas between them

/** Draw the form. */
export async function newJobPage(main, signal) {
  if (!mayChange(await caller(signal))) {
    const note = "The role of your key is read: it may look at jobs and download what they left. To start one it needs the role submit.";
    return fill(main, h("h1", {}, "New job"), h("p", { class: "lead" }, note));
  }
  const facts = await Promise.all([askJson("/v1/targets", { signal }), askJson("/openapi.json", { signal })]);
  const targets = facts[0].targets;
  const schema = facts[1].paths["/v1/jobs"].post.requestBody.content["multipart/form-data"].schema.properties.config.properties;
  const metrics = schema.accuracy.properties.metric.anyOf[0].enum.filter((metric) => metric !== "custom");

  const inputs = pictureInputs();
  const preflight = preflightPanel();
  const files = [
    fileField({ role: "model", title: "Model", required: true, folder: true, accept: ".onnx,.zip,.tar,.gz,.bz2,.xz,.data,.bin,.pb",
      hint: "An .onnx file of a float model. Choose all its files, or its folder, where weights lie beside it.", onFacts: inputs.model, onStored: preflight.show }),
    fileField({ role: "calibration", title: "Calibration samples", required: true, folder: true,
      hint: "A few hundred: .npz, .npy, pictures in folders or a .zip, tokens (.jsonl, .parquet), .safetensors, ONNX test sets.", onFacts: inputs.data }),
    fileField({ role: "validation", title: "Validation samples", folder: true,
      hint: "What accuracy is measured on; the more, the surer. Without them 40% of the calibration samples are kept apart." }),
  ];
  const metricFile = fileField({ role: "metric", title: "A metric of your own", hint: "An .onnx graph that scores each sample from 0 to 1." });

  const target = select("target", targets.map(({ target: name }) => [name, name]));
  const gpu = select("gpu", []);
  const targetFacts = h("p", { class: "note", id: "target-facts" });
  const kind = select("budget-kind", Object.entries(BUDGETS).map(([name, { words }]) => [name, words]));
  const amount = h("input", { id: "budget", type: "number", step: "any", min: 0, max: 1, required: true, "aria-describedby": "budget-note" });
  const budgetNote = h("p", { class: "note", id: "budget-note" });
  const metric = select("metric", [["", "Chosen by the server"], ...metrics.map((name) => [name, name])]);
  const batch = h("input", { id: "batch-size", type: "number", min: 1, max: 65536, step: 1, value: 1, required: true });
  const trials = h("input", { id: "max-trials", type: "number", min: 1, step: 1, placeholder: "40" });
  const seconds = h("input", { id: "max-seconds", type: "number", min: 1, step: "any", placeholder: "none" });
  const json = h("textarea", { id: "config-json", rows: 6, spellcheck: "false", placeholder: '{"threads": 4}', "aria-describedby": "json-note" });
  const effective = h("pre", { tabindex: 0, "aria-label": "Configuration that will be sent" });
  const gpuField = field("gpu", "GPU", gpu);
  const outcome = h("div");
  const start = h("button", { type: "submit", class: "main big" }, "Start the job");

  function config() {
    const chosen = { target: target.value, batch_size: Number(batch.value), accuracy: { [kind.value]: Number(amount.value) } };
    if (gpu.value) chosen.gpu = gpu.value;
    if (metric.value) chosen.accuracy.metric = metric.value;
    if (trials.value) (chosen.search ??= {}).max_trials = Number(trials.value);
    if (seconds.value) (chosen.search ??= {}).max_seconds = Number(seconds.value);
    const prepared = inputs.preprocess();
    if (prepared) chosen.preprocess = prepared;
    return merged(chosen, given());
  }

  function given() {
    if (!json.value.trim()) return {};
    const value = JSON.parse(json.value);
    if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error("it is no object");
    return value;
  }

  function show() {
    const about = targets.find(({ target: name }) => name === target.value);
    gpuField.classList.toggle("hidden", !about?.gpus.length);
    if (about) targetFacts.textContent = `Layers may take ${about.precisions.join(", ")}. Latency is ${about.latency_source}.`;
    budgetNote.textContent = BUDGETS[kind.value].note;
    try {
      effective.textContent = JSON.stringify(config(), null, 2);
      json.removeAttribute("aria-invalid");
    } catch (error) {
      effective.textContent = `The JSON cannot be read: ${error.message}`;
      json.setAttribute("aria-invalid", "true");
    }
  }

  target.addEventListener("change", () => {
    const gpus = targets.find(({ target: name }) => name === target.value)?.gpus ?? [];
    fill(gpu, gpus.length ? h("option", { value: "" }, "Choose one") : null, gpus.map((name) => h("option", { value: name }, name)));
    gpu.required = gpus.length > 0;
  });
  kind.addEventListener("change", () => (amount.value = BUDGETS[kind.value].value));

  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  let tries = 0;
  async function submit(event) {
    event.preventDefault();
    fill(outcome);
    start.disabled = true;
    start.textContent = "Starting ...";
    try {
      const body = { config: readConfig() };
      for (const one of [...files, metricFile]) {
        const id = await one.ready();
        if (id !== null) body[`${one.role}_id`] = id;
      }
      // The same key until the server has answered, so that a request whose answer was lost makes no second job.
      const headers = { "Content-Type": "application/json", "Idempotency-Key": `page-${key}-${tries}` };
      const job = await askJson("/v1/jobs", { method: "POST", headers, body: JSON.stringify(body) });
      rememberName(job.id, files[0].name());
      say("The job is submitted.");
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (error.status) tries += 1;
      fill(outcome, problemBox(error));
      outcome.scrollIntoView({ block: "nearest" });
    } finally {
      start.disabled = false;
      start.textContent = "Start the job";
    }
  }

  function readConfig() {
    try {
      return config();
    } catch (error) {
      json.closest("details").open = true;
      json.focus();
      throw new Problem({ title: "The JSON cannot be read", detail: error.message, fix: "Mend it, or empty the field." });
    }
  }

  const form = h("form", { onsubmit: submit, oninput: show, onchange: show, class: "new-job" },
    h("fieldset", {}, h("legend", {}, "1. Model and data"), h("div", { class: "drops" }, files.map(({ element }) => element)), preflight.element, inputs.element),
    h("fieldset", {}, h("legend", {}, "2. Target and budget"),
      h("div", { class: "grid" },
        field("target", "Target", target, targetFacts),
        gpuField,
        field("batch-size", "Batch size", batch, h("p", { class: "note" }, "Samples per call that the engine is timed with.")),
        field("budget-kind", "Accuracy budget", kind, budgetNote),
        field("budget", "Value of the budget", amount),
        field("metric", "Metric", metric, h("p", { class: "note" }, "By default it follows from the labels and the outputs.")))),
    h("details", {}, h("summary", {}, "Advanced"),
      h("div", { class: "grid" },
        field("max-trials", "Most engines to try", trials),
        field("max-seconds", "Start no further one after (seconds)", seconds)),
      metricFile.element,
      field("config-json", "More configuration, as JSON", json,
        h("p", { class: "note", id: "json-note" }, "Its keys win over the fields above. All keys stand in the API's page, under POST /v1/jobs.")),
      h("h2", {}, "What will be sent"), effective),
    outcome, start);
  form.addEventListener("invalid", ({ target: wrong }) => (wrong.closest("details") ?? {}).open = true, true); // so that it can be seen
  fill(main, h("h1", {}, "New job"),
    h("p", { class: "lead" }, "Give a trained ONNX model, samples and an accuracy budget. You get the fastest engine that stays inside the budget, and a report that explains it."),
    form);
  amount.value = BUDGETS.min_relative.value;
  inputs.changed = show;
  target.dispatchEvent(new Event("change"));
  show();
}

// How pictures are prepared: shown where the data is pictures or bytes.
function pictureInputs() {
  const how = select("pictures", Object.entries(PICTURES).map(([name, { words }]) => [name, words]));
  const size = h("input", { id: "picture-size", type: "number", min: 1, max: 16384, step: 1, value: 224 });
  const each = (id) => h("input", { id, inputmode: "decimal", required: true, pattern: NUMBERS, placeholder: "0.49, 0.48, 0.45", title: "Numbers with commas between them" });
  const mean = each("picture-mean"), std = each("picture-std");
  const note = h("p", { class: "note" }, "Of each channel, for values from 0 to 1; one number stands for all.");
  const element = h("div", { class: "grid" },
    field("pictures", "How the samples become the model's numbers", how),
    field("picture-size", "Height and width of the model's input", size),
    field("picture-mean", "Mean", mean, note),
    field("picture-std", "Deviation", std));
  // Disabled too: a wrong value in a field that nobody sees would keep the form from being sent.
  const shown = (input, isShown) => input.parentElement.classList.toggle("hidden", (input.disabled = !isShown));
  const sized = () => {
    shown(size, how.value !== "none");
    for (const one of [mean, std]) shown(one, how.value === "own");
  };
  how.addEventListener("change", sized);
  sized();
  const self = {
    element,
    changed: () => {},
    preprocess: () => PICTURES[how.value].make(Number(size.value), ...[mean, std].map(({ value }) => value.split(",").map(Number))),
    model(facts) {
      const sides = facts.inputs?.length === 1 ? facts.inputs[0].shape.filter((side) => Number(side) > 4) : [];
      if (sides.length) size.value = sides[sides.length - 1];
      self.changed();
    },
    data(facts) {
      if (facts.kind === "pictures" && how.value === "none") how.value = "imagenet";
      sized();
      self.changed();
    },
  };
  return self;
}

const select = (id, options) => h("select", { id }, options.map(([value, words]) => h("option", { value }, words)));
const field = (id, title, ...content) => h("div", { class: "field" }, h("label", { for: id }, title), content);

// `over` laid over `under`, object by object. An objective or another budget takes the place of the budget of the form.
function merged(under, over) {
  const result = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const both = isObject(result[key]) && isObject(value);
    result[key] = both ? merged(result[key], value) : value;
  }
  if (over.objective || Object.keys(over.accuracy ?? {}).some((key) => /^(min_|max_)/.test(key))) {
    const own = over.accuracy ?? {};
    result.accuracy = Object.fromEntries(Object.entries(result.accuracy).filter(([key]) => !/^(min_|max_)/.test(key) || key in own));
  }
  return result;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
