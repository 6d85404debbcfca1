// The engines that a job has tried: as points and as a table.
import { h, table } from "/web/dom.js";
import { OTHERS, scatter } from "/web/scatter.js";
import { allowedDrop, dropOf, duration, isNumber, latencyTitle, lost, metricOf, milliseconds, orderWords, ratioOf, score, scoreTitle, shipped, signed } from "/web/words.js";

/** Return the plot of one job. */
export function trialsPlot(job) {
  const points = placed(job), objective = Boolean(job.config?.objective);
  const of = (look) => points.filter((point) => point.look === look);
  return scatter({
    title: "Engines tried: latency against score lost",
    limit: allowedDrop(job),
    series: [
      { look: "outside", title: objective ? "too slow" : "not likely inside the budget", points: of("outside") },
      { look: "inside", title: objective ? "fast enough" : "inside the budget", points: of("inside") },
      { look: "baseline", title: "baseline", points: of("baseline") },
      { look: "best", title: leaderWord(job), points: of("best") },
    ],
  });
}

/** Return the plot of several jobs together, each against its own baseline. */
export function comparedPlot(jobs, nameOf) {
  return scatter({
    title: "Engines of the compared jobs: latency against score lost",
    series: jobs.map((job, index) => ({ look: OTHERS[index % OTHERS.length], title: nameOf(job), points: placed(job).filter(({ look }) => look !== "baseline") })),
  });
}

function placed(job) {
  const baseline = job.trials[0], metric = metricOf(job);
  return job.trials.map((trial) => {
    const x = ratioOf(trial, baseline, job.result), y = dropOf(trial, baseline, metric);
    if (x === null || y === null) return null;
    const good = trial.met ?? trial.fast_enough;
    const look = trial.index === 0 ? "baseline" : trial.index === leader(job) ? "best" : good ? "inside" : "outside";
    return { x, y, look, words: `Engine ${trial.index} (${orderWords(trial.order)}): ${x.toFixed(3)} of the baseline's latency, score lost ${signed(y)}` };
  }).filter(Boolean);
}

/** Return the table of one job. */
export function trialsTable(job) {
  const baseline = job.trials[0], metric = metricOf(job);
  return table("Engines tried", [
    { title: "Engine", cell: (trial) => h("span", { class: "whole" }, `${trial.index}${trial.index === leader(job) ? ` ★ ${leaderWord(job)}` : ""}`) },
    { title: "Found by", cell: (trial) => orderWords(trial.order) },
    { title: "Quantized layers", cell: (trial) => trial.low_layers ?? "–", number: true },
    { title: latencyTitle("Latency", job.result), cell: (trial) => milliseconds(trial.latency_ms?.median), number: true },
    { title: "Ratio to baseline", cell: (trial) => fixed(ratioOf(trial, baseline, job.result)), number: true },
    { title: scoreTitle(job), cell: (trial) => score(trial.accuracy, metric), number: true },
    { title: "Score lost", cell: (trial) => lost(dropOf(trial, baseline, metric), metric), number: true },
    { title: "Budget", cell: answer },
    { title: "Took", cell: (trial) => isNumber(trial.seconds) ? duration(trial.seconds) : "–", number: true },
  ], job.trials.map((trial) => ({ ...trial, marked: trial.index === leader(job) })));
}

// The search's best until the verdict has chosen, which may be another engine.
const leader = (job) => shipped(job) ?? job.best;
const leaderWord = (job) => (shipped(job) === null ? "best so far" : "chosen");
const fixed = (value) => (isNumber(value) ? value.toFixed(3) : "–");

function answer(trial) {
  if (trial.failure) return [h("span", { "aria-hidden": "true" }, "✕ "), `failed: ${trial.failure}`];
  const words = [];
  if (trial.met !== null && trial.met !== undefined) words.push(trial.met ? "●\u00a0inside" : "✕\u00a0not likely inside");
  if (trial.fast_enough !== null && trial.fast_enough !== undefined) words.push(trial.fast_enough ? "●\u00a0fast enough" : "✕\u00a0too slow");
  return words.join(", ") || "–";
}
