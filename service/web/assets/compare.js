// Finished jobs side by side.
import { fill, h, table } from "/web/dom.js";
import { askJson } from "/web/http.js";
import { titleOf } from "/web/names.js";
import { comparedPlot } from "/web/trials.js";
import { ANSWERS, budgetWords, bytes, counts, lost, metricOf, milliseconds, probability, score, speedWords, STATES, took } from "/web/words.js";

const ROWS = [
  ["State", (job) => STATES[job.state]?.words ?? job.state],
  ["Target", (job) => `${job.target}${job.config.gpu ? `, ${job.config.gpu}` : ""}`],
  ["Batch size", (job) => job.config.batch_size],
  ["Asked for", (job) => budgetWords(job.config)],
  ["Found", (job) => speedWords(job.result)],
  ["Latency is", (job) => job.result?.latency_source ?? "–"],
  ["Latency before", (job) => milliseconds(job.result?.baseline?.latency_ms?.median)],
  ["Latency after", (job) => milliseconds(job.result?.chosen?.latency_ms?.median)],
  ["Metric", (job) => metricOf(job) ?? "–"],
  ["Score before", (job) => score(job.result?.baseline?.accuracy, metricOf(job))],
  ["Score after", (job) => score(job.result?.chosen?.accuracy, metricOf(job))],
  ["Lost of the float model's score", (job) => lost(job.result?.verdict?.drop, metricOf(job))],
  ["Verdict", (job) => ANSWERS[job.result?.verdict?.answer] ?? "–"],
  ["Inside the budget with probability", (job) => probability(1 - (job.result?.verdict?.probability_over_budget ?? NaN))],
  ["Layers", (job) => counts(job.result?.chosen?.precisions)],
  ["Size before", (job) => bytes(job.result?.baseline?.size_bytes)],
  ["Size after", (job) => bytes(job.result?.chosen?.size_bytes)],
  ["Engines tried", (job) => job.trials.length],
  ["Took", took],
];

/** Draw the comparison. */
export async function comparePage(main, signal, ids) {
  const jobs = await Promise.all(ids.map((id) => askJson(`/v1/jobs/${encodeURIComponent(id)}`, { signal })));
  const columns = [
    { title: "What", cell: ([name]) => name },
    ...jobs.map((job) => ({ title: titleOf(job.id), cell: ([, read]) => read(job) })),
  ];
  fill(main, h("h1", {}, "Compare jobs"),
    h("p", { class: "bar" }, jobs.map((job) => h("a", { class: "button", href: `#/jobs/${job.id}` }, titleOf(job.id)))),
    h("section", {}, table("Side by side", columns, ROWS)),
    h("section", {}, h("h2", {}, "Engines tried"), h("p", { class: "note" }, "Each against its own baseline."), comparedPlot(jobs, (job) => titleOf(job.id))));
}
