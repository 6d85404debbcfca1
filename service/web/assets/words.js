// Numbers, times and states in words.

export const STATES = {
  queued: { words: "waiting", sign: "○" },
  running: { words: "running", sign: "▶" },
  on_hold: { words: "on hold", sign: "‖" },
  succeeded: { words: "succeeded", sign: "✓" },
  failed: { words: "failed", sign: "✕" },
  cancelled: { words: "cancelled", sign: "–" },
};

// As the report has them.
export const ANSWERS = {
  met: "The accuracy budget is met",
  met_on_sample: "The accuracy budget is likely met, although these samples are too few to be certain",
  not_met: "The accuracy budget is not met",
};
export const SELECTIONS = {
  held_out: "The search did not see these samples.",
  shared: "The search saw the same samples: there are too few to keep some apart.",
};
export const STAGES = {
  inspect: "reading the model and the data",
  ranges: "measuring ranges",
  search: "trying engines",
  sensitivity: "measuring the sensitivity of layers",
  dependency: "measuring how layers depend on each other",
  refine: "refining the search",
  routes: "trying build routes",
  report: "judging and writing the report",
};

// By what an engine came to be tried; as the report has them.
export const ORDERS = {
  baseline: "the baseline",
  all_low: "all layers quantized",
  products: "all but the residual adds",
  folded: "constants folded",
  given: "the given assignment",
  fastest: "predicted to be the fastest",
  frontier: "predicted frontier",
  refine: "frontier, predicted anew",
  moves: "a step from the best",
  loss: "by measured loss",
  hessian: "by the Hessian",
  "hessian+dependency": "by Hessian and dependencies",
  conditional: "by loss, layer after layer",
};

const ERRORS = new Set(["nmse", "kl"]); // metrics of which less is better
const DECIBELS = new Set(["psnr", "si_snr"]);
const IDENTICAL = 150; // decibels
const SURELY = 0.99;
const APART = 0.01;

export const isFinished = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function bytes(count) {
  if (!isNumber(count)) return "unknown";
  const units = ["bytes", "kB", "MB", "GB"];
  let at = 0;
  for (; count >= (at ? 999.95 : 1000) && at < units.length - 1; at++) count /= 1000; // 999.96 kB would be called 1000.0
  return `${at === 0 ? count : count.toFixed(count < 10 ? 2 : 1)} ${units[at]}`;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
export const milliseconds = (value) => (isNumber(value) ? `${value < 1000 ? value.toPrecision(4) : Math.round(value).toLocaleString("en")} ms` : "not measured");
export const times = (value) => `${value.toFixed(2)} times as fast`;
export const shortId = (id) => String(id).slice(0, 8);

export function score(value, metric) {
  if (!isNumber(value)) return "–";
  if (DECIBELS.has(metric)) return value >= IDENTICAL ? "identical" : `${value.toFixed(2)} dB`;
  return value === 0 || Math.abs(value) >= 1e-3 ? value.toFixed(4) : value.toExponential(2);
}

export function signed(value) {
  if (!isNumber(value)) return "–";
  if (value === 0) return "0";
  const text = Math.abs(value) >= 1e-5 ? value.toFixed(5) : value.toExponential(2);
  return value >= 0 ? `+${text}` : text.replace("-", "−");
}

/** Return a score that was lost; decibels, against the float model itself, are no loss that says anything to anybody. */
export const lost = (value, metric) => (DECIBELS.has(metric) ? "–" : signed(value));

export function duration(seconds) {
  if (!isNumber(seconds)) return "unknown";
  const whole = Math.round(seconds), minutes = Math.round(seconds / 60);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// In the order of the report's dates, and with the time zone, since a report is in UTC.
const MOMENT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
export const moment = (text) => (text ? MOMENT.format(new Date(text)) : "–");

/** Return a probability as a reader should take it: beyond 99% it is no better than what it assumes. */
export function probability(value) {
  if (!isNumber(value)) return "–";
  return value >= SURELY ? "> 99%" : value < 1 - SURELY ? "< 1%" : percent(value);
}

/** Return the spread of a speed-up: "± 0.003". */
export const plusMinus = (spread) => `±\u00a0${Number(Math.max(spread, 0.001).toPrecision(1))}`;

export function took(job) {
  return job.started_at && job.finished_at ? duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000) : "–";
}

/** Return how many layers have each precision. */
export const counts = (precisions) => Object.entries(precisions || {}).map(([name, count]) => `${count} ${name}`).join(", ") || "–";

/** Return what proposed an engine, in words. */
export const orderWords = (order) => ORDERS[order] ?? (order?.startsWith("all_") ? `all layers in ${order.slice(4)}` : String(order ?? "–"));

/** Return the heading of a column of scores, with their metric where it is known. */
export const scoreTitle = (job) => (metricOf(job) ? `Score (${metricOf(job)})` : "Score");

/** Return the heading of a column of latencies, which are never called measured where they are not. */
export const latencyTitle = (title, result) => (result?.latency_source === "predicted" ? "Latency, predicted" : title);

/** Return the metric that a job's engines are judged by, or null where the server chooses it and has not said it yet. */
export const metricOf = (job) => job.result?.verdict?.metric ?? job.config?.accuracy?.metric ?? null;

/** Return the index of the engine that a finished job ships; null before, or where it is not known. */
export function shipped({ result, trials }) {
  if (!result?.outcome) return null;
  if (result.outcome === "baseline_kept") return 0;
  const offered = result.offers?.engines?.find(({ file }) => file && file.name === result.engine?.name);
  return trials.find(({ fingerprint }) => fingerprint === offered?.fingerprint)?.index ?? null;
}

/** Return how much worse an engine's score is than the baseline's, or null. */
export function dropOf(trial, baseline, metric) {
  if (!isNumber(trial.accuracy) || !isNumber(baseline?.accuracy)) return null;
  return ERRORS.has(metric) ? trial.accuracy - baseline.accuracy : baseline.accuracy - trial.accuracy;
}

/** Return an engine's latency in units of the baseline's, or null. Where engines were timed again for the result, that counts. */
export function ratioOf(trial, baseline, result) {
  const again = result?.offers?.engines?.find(({ fingerprint }) => fingerprint === trial.fingerprint);
  const timed = again?.ratio ?? trial.ratio;
  if (isNumber(timed)) return timed;
  const [mine, first] = [trial.latency_ms?.median, baseline?.latency_ms?.median];
  return isNumber(mine) && isNumber(first) && first > 0 ? mine / first : null;
}

/** Return the largest drop that a job's budget allows, or null where only the server knows it. */
export function allowedDrop(job) {
  const budget = job.result?.verdict?.budget;
  const metric = metricOf(job);
  if (job.config?.objective) return null;
  if (isNumber(budget)) return budget;
  const accuracy = job.config?.accuracy ?? {};
  const base = job.trials?.[0]?.accuracy;
  if (isNumber(accuracy.max_drop)) return accuracy.max_drop;
  if (isNumber(accuracy.max_nmse)) return accuracy.max_nmse;
  if (isNumber(accuracy.max_kl)) return accuracy.max_kl;
  const least = accuracy.min_psnr ?? accuracy.min_si_snr;
  if (isNumber(least)) return IDENTICAL - least;
  if (!isNumber(base) || ERRORS.has(metric) || DECIBELS.has(metric)) return null;
  if (isNumber(accuracy.min_score)) return base - accuracy.min_score;
  return base * (1 - (accuracy.min_relative ?? 0.99));
}

/** Return what a budget asks, in words. */
export function budgetWords(config) {
  const accuracy = config?.accuracy ?? {};
  const objective = config?.objective;
  if (objective) return isNumber(objective.min_speedup) ? `at least ${times(objective.min_speedup)}` : `at most ${objective.max_latency_ms} ms`;
  if (isNumber(accuracy.max_drop)) return `a drop of at most ${accuracy.max_drop}`;
  if (isNumber(accuracy.min_score)) return `a score of at least ${accuracy.min_score}`;
  if (isNumber(accuracy.max_nmse)) return `an NMSE of at most ${accuracy.max_nmse}`;
  if (isNumber(accuracy.max_kl)) return `a divergence of at most ${accuracy.max_kl} nats`;
  if (isNumber(accuracy.min_psnr)) return `at least ${accuracy.min_psnr} dB`;
  if (isNumber(accuracy.min_si_snr)) return `at least ${accuracy.min_si_snr} dB`;
  return `at least ${+(100 * (accuracy.min_relative ?? 0.99)).toFixed(4)}% of the float model's score`;
}

/** Return the speed-up of a result in words; where it is predicted it is called so. */
export function speedWords(result) {
  if (!result) return "–";
  if (result.outcome === "baseline_kept") return "the baseline is kept";
  const predicted = result.predicted_speedup;
  if (predicted) return `predicted, not measured: ${times(predicted.value)}`;
  return isNumber(result.speedup) ? times(result.speedup) : "–";
}

/** Whether a result's milliseconds give another speed-up than the one that is told: they are of the wall clock, it is of processor time. */
export function isApart({ speedup, baseline, chosen }) {
  const [before, after] = [baseline, chosen].map((side) => side?.latency_ms?.median);
  return isNumber(speedup) && isNumber(before) && after > 0 && Math.abs(before / after / speedup - 1) > APART;
}

/** Return the sentences of a result's verdict, without what its reason says. */
export function verdictWords({ verdict, objective, reason = "" }) {
  if (!verdict) return [];
  if (verdict.method === "same_engine") return ["The accuracy budget is met: the engine is the model that was uploaded, so that nothing is lost."];
  const inside = 1 - (verdict.probability_over_budget ?? NaN);
  const sure = inside >= SURELY ? "above 0.99" : inside < 1 - SURELY ? "below 0.01" : inside.toFixed(2);
  if (objective && isNumber(inside) && !DECIBELS.has(verdict.metric)) { // no accuracy budget was asked for: this one follows from the engine
    return [`With probability ${sure} the engine loses at most ${signed(verdict.budget)} of the float model's ${verdict.metric}, on ${verdict.n.toLocaleString("en")} samples.`];
  }
  const lines = [`${ANSWERS[verdict.answer] ?? verdict.answer}.`];
  if (isNumber(inside) && !reason.includes("with probability")) lines.push(`The engine is inside the budget with probability ${sure}.`);
  const unit = DECIBELS.has(verdict.metric);
  if (!unit && Array.isArray(verdict.interval)) {
    const [low, high] = verdict.interval;
    const word = ERRORS.has(verdict.metric) ? "rise" : "drop";
    lines.push(`Against the float model the ${word} of ${verdict.metric} is ${signed(verdict.drop)}, between ${signed(low)} and ${signed(high)} `
      + `(each end with ${percent(verdict.confidence, 0)} confidence), on ${verdict.n.toLocaleString("en")} samples; allowed is ${signed(verdict.budget)}.`);
  }
  if (unit && Array.isArray(verdict.interval)) {
    const [high, low] = verdict.interval.map((drop) => score(IDENTICAL - drop, verdict.metric));
    lines.push(`Against the float model ${verdict.metric} is ${score(IDENTICAL - verdict.drop, verdict.metric)}, between ${low} and ${high} `
      + `(each end with ${percent(verdict.confidence, 0)} confidence), on ${verdict.n.toLocaleString("en")} samples; at least ${score(IDENTICAL - verdict.budget, verdict.metric)} is asked for.`);
  }
  const isMore = verdict.drop > verdict.budget;
  if (verdict.answer === "not_met" && !isMore) lines.push("The samples lost no more than is allowed, but so few of them often do where all data lose more.");
  if (verdict.answer === "met_on_sample" && isMore) {
    lines.push("The samples lost more than is allowed; how clearly each decision is made says that all data more likely lose less.");
  }
  if (verdict.answer !== "met" && isNumber(verdict.samples_needed)) {
    lines.push(`About ${Number(verdict.samples_needed.toPrecision(2)).toLocaleString("en")} samples with the same rates would settle it.`);
  }
  if (SELECTIONS[verdict.selection]) lines.push(SELECTIONS[verdict.selection]);
  return lines;
}
