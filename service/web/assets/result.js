// What a job has found.
import { h, table } from "/web/dom.js";
import { nameOf } from "/web/names.js";
import { budgetWords, bytes, counts, isApart, isNumber, latencyTitle, metricOf, milliseconds, percent, plusMinus, probability, score, scoreTitle, speedWords, STATES, times, verdictWords } from "/web/words.js";

/** Return the result: headline, verdict, before and after, offers, warnings. `get(path, name)` saves a file. */
export function resultView(job, get) {
  const { result } = job;
  if (job.branches?.length) return typesView(job);
  const sides = [["Baseline", result.baseline], ["Chosen", result.chosen]].filter(([, side]) => side);
  return [
    h("p", { class: `headline ${result.outcome}` }, result.outcome !== "baseline_kept" ? capital(speedWords(result)) : "The baseline is kept"),
    h("p", {}, result.reason),
    result.none_ran ? h("p", { class: "warning" }, `No quantized engine could be built or run: ${result.none_ran}`) : null,
    h("p", { class: "note" }, `Asked for: ${budgetWords(job.config)}. `, uncertainty(result)),
    h("ul", { class: "verdict" }, verdictWords(result).map((line) => h("li", {}, line))),
    sides.length ? table("Before and after", [
      { title: "Engine", cell: ([name]) => name },
      { title: latencyTitle("Latency, median", result), cell: ([, side]) => milliseconds(side.latency_ms?.median), number: true },
      { title: "p95", cell: ([, side]) => milliseconds(side.latency_ms?.p95), number: true },
      { title: scoreTitle(job), cell: ([, side]) => score(side.accuracy, metricOf(job)), number: true },
      { title: "Size", cell: ([, side]) => bytes(side.size_bytes), number: true },
      { title: "Layers", cell: ([, side]) => counts(side.precisions) },
    ], sides) : null,
    isApart(result) ? h("p", { class: "note" }, "The milliseconds are of the wall clock; the speed-up is of processor time, which other work on the machine does not change.") : null,
    warnings(result.warnings),
    offers(job, get),
  ];
}

// Of a job for several types of GPU: how each is, with a link to the job that makes its engine.
function typesView(job) {
  const found = (branch) => job.result?.engines[branch.gpu];
  return [
    h("p", { class: `headline ${job.result?.outcome ?? ""}` }, "An engine for each type of GPU"),
    table("Types of GPU", [
      { title: "GPU", cell: (branch) => branch.gpu },
      { title: "State", cell: (branch) => STATES[branch.state]?.words ?? branch.state },
      { title: "Done", cell: (branch) => percent(branch.progress), number: true },
      { title: "Found", cell: (branch) => found(branch)?.error?.detail ?? (found(branch)?.outcome ? speedWords(found(branch)) : "–") },
      { title: "Job", cell: (branch) => h("a", { href: `#/jobs/${branch.id}` }, nameOf(branch.id)) },
    ], job.branches),
  ];
}

function uncertainty(result) {
  if (result.predicted_speedup?.range) {
    const [low, high] = result.predicted_speedup.range;
    const range = result.outcome === "baseline_kept" ? "" : ` The speed-up's range is ${low.toFixed(2)} to ${high.toFixed(2)}.`;
    return `Latency is predicted, not measured.${range}`;
  }
  const word = result.latency_source ? `Latency is ${result.latency_source}. ` : "";
  return word + (isNumber(result.speedup_spread) && result.speedup_spread ? `The speed-up is known to ${plusMinus(result.speedup_spread)}.` : "");
}

const warnings = (list) => (list?.length ? h("section", { class: "warning", "aria-label": "Warnings" }, h("h3", {}, "⚠ Warnings"), h("ul", {}, list.map((text) => h("li", {}, `${capital(text)}.`)))) : null);

// What other budgets would give; engines that were kept can be had.
function offers(job, save) {
  const { offers: found } = job.result;
  if (!found?.engines?.length) return found?.in_words ? h("p", {}, `Other budgets: ${found.in_words}.`) : null;
  const get = (engine) => h("button", { type: "button", onclick: () => save(`/v1/jobs/${job.id}/engines/${encodeURIComponent(engine.fingerprint)}`, `${engine.fingerprint}-${lastPart(engine.file.name)}`) }, "Download");
  return [h("h3", {}, "What other budgets would give"), h("p", {}, `${capital(found.in_words)}.`),
    table("Engines that no other one beats", [
      { title: "Keeps", cell: (engine) => engine.in_words },
      { title: "Speed", cell: (engine) => (isNumber(engine.speedup) ? times(engine.speedup) : "–"), number: true },
      { title: "Probability of that", cell: (engine) => probability(1 - engine.verdict?.probability_over_budget), number: true },
      { title: scoreTitle(job), cell: (engine) => score(engine.accuracy, metricOf(job)), number: true },
      { title: "Size", cell: (engine) => bytes(engine.size_bytes), number: true },
      { title: "Layers", cell: (engine) => counts(engine.precisions) },
      { title: "File", cell: (engine) => (engine.file ? get(engine) : engine.no_file) },
    ], found.engines)];
}

const lastPart = (name) => name.split("/").pop();
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
