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

const ERRORS = new Set(["nmse", "kl"]); // metrics of which less is better
const DECIBELS = new Set(["psnr", "si_snr"]);

export const isFinished = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function bytes(count) {
  if (!isNumber(count)) return "unknown";
  const units = ["bytes", "kB", "MB", "GB"];
  let at = 0;
  for (; count >= 1000 && at < units.length - 1; at++) count /= 1000;
  return `${at === 0 ? count : count.toFixed(count < 10 ? 2 : 1)} ${units[at]}`;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
export const milliseconds = (value) => (isNumber(value) ? `${value.toPrecision(4)} ms` : "not measured");
export const times = (value) => `${value.toFixed(2)} times as fast`;
export const shortId = (id) => String(id).slice(0, 8);

export function score(value) {
  if (!isNumber(value)) return "–";
  return value === 0 || Math.abs(value) >= 1e-3 ? value.toFixed(4) : value.toExponential(2);
}

export function signed(value) {
  if (!isNumber(value)) return "–";
  if (value === 0) return "0";
  const text = Math.abs(value) >= 1e-5 ? value.toFixed(5) : value.toExponential(2);
  return value >= 0 ? `+${text}` : text.replace("-", "−");
}

export function duration(seconds) {
  if (!isNumber(seconds)) return "unknown";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

export const moment = (text) => (text ? new Date(text).toLocaleString() : "–");

export function took(job) {
  return job.started_at && job.finished_at ? duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000) : "–";
}

/** Return how many layers have each precision. */
export const counts = (precisions) => Object.entries(precisions || {}).map(([name, count]) => `${count} ${name}`).join(", ") || "–";

/** Return the metric that a job's engines are judged by, or null where the server chooses it and has not said it yet. */
export const metricOf = (job) => job.result?.verdict?.metric ?? job.config?.accuracy?.metric ?? null;

/** Return how much worse an engine's score is than the baseline's, or null. */
export function dropOf(trial, baseline, metric) {
  if (!isNumber(trial.accuracy) || !isNumber(baseline?.accuracy)) return null;
  return ERRORS.has(metric) ? trial.accuracy - baseline.accuracy : baseline.accuracy - trial.accuracy;
}

/** Return an engine's latency in units of the baseline's, or null. Where engines were timed again for the result, that counts. */
export function ratioOf(trial, baseline, result) {
  const again = result?.offers?.engines?.find(({ fingerprint }) => fingerprint === trial.fingerprint);
  if (isNumber(again?.ratio)) return again.ratio;
  const [mine, first] = [trial.latency_ms?.median, baseline?.latency_ms?.median];
  return isNumber(mine) && isNumber(first) && first > 0 ? mine / first : null;
}

/** Return the largest drop that a job's budget allows, or null where only the server knows it. */
export function allowedDrop(job) {
  const budget = job.result?.verdict?.budget;
  const metric = metricOf(job);
  if (job.config?.objective || DECIBELS.has(metric)) return null;
  if (isNumber(budget)) return budget;
  const accuracy = job.config?.accuracy ?? {};
  const base = job.trials?.[0]?.accuracy;
  if (isNumber(accuracy.max_drop)) return accuracy.max_drop;
  if (isNumber(accuracy.max_nmse)) return accuracy.max_nmse;
  if (isNumber(accuracy.max_kl)) return accuracy.max_kl;
  if (!isNumber(base) || ERRORS.has(metric)) return null;
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
  const predicted = result.predicted_speedup;
  if (predicted) return `predicted, not measured: ${times(predicted.value)}`;
  if (result.outcome === "baseline_kept") return "the baseline is kept";
  return isNumber(result.speedup) ? times(result.speedup) : "–";
}

/** Return the sentences of a result's verdict, without what its reason says. */
export function verdictWords({ verdict, reason = "" }) {
  if (!verdict) return [];
  if (verdict.method === "same_engine") return ["The accuracy budget is met: the engine is the model that was uploaded, so that nothing is lost."];
  const lines = [`${ANSWERS[verdict.answer] ?? verdict.answer}.`];
  if (isNumber(verdict.probability_over_budget) && !reason.includes("with probability")) {
    lines.push(`The engine is inside the budget with probability ${(1 - verdict.probability_over_budget).toFixed(2)}.`);
  }
  const unit = DECIBELS.has(verdict.metric);
  if (!unit && Array.isArray(verdict.interval)) {
    const [low, high] = verdict.interval;
    const word = ERRORS.has(verdict.metric) ? "rise" : "drop";
    lines.push(`The ${word} of ${verdict.metric} is ${signed(verdict.drop)}, between ${signed(low)} and ${signed(high)} `
      + `(each end with ${percent(verdict.confidence, 0)} confidence), on ${verdict.n.toLocaleString("en")} samples; allowed is ${signed(verdict.budget)}.`);
  }
  if (verdict.answer !== "met" && isNumber(verdict.samples_needed)) {
    lines.push(`About ${verdict.samples_needed.toLocaleString("en")} samples with the same rates would settle it.`);
  }
  if (SELECTIONS[verdict.selection]) lines.push(SELECTIONS[verdict.selection]);
  return lines;
}
