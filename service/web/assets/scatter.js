// Engines as points: latency against the baseline's, and the score lost. Each series has a shape of its own beside its colour.
import { h, svg } from "/web/dom.js";

const LEFT = 84, RIGHT = 16, TOP = 16, BOTTOM = 48;
const SIZE = 7;

// The looks of series, by name: a shape, and a class of the style sheet that gives the colour.
const LOOKS = ["baseline", "inside", "outside", "best", "other-a", "other-b", "other-c", "other-d", "other-e", "other-f"];

/** The looks of jobs that are compared. */
export const OTHERS = LOOKS.filter((look) => look.startsWith("other"));
const SHAPES = {
  baseline: (x, y) => svg("rect", { x: x - SIZE, y: y - SIZE, width: 2 * SIZE, height: 2 * SIZE }),
  inside: (x, y) => svg("circle", { cx: x, cy: y, r: SIZE }),
  outside: (x, y) => svg("path", { d: `M${x - SIZE} ${y - SIZE}L${x + SIZE} ${y + SIZE}M${x - SIZE} ${y + SIZE}L${x + SIZE} ${y - SIZE}` }),
  best: (x, y) => svg("path", { d: star(x, y) }),
  "other-a": (x, y) => svg("circle", { cx: x, cy: y, r: SIZE }),
  "other-b": (x, y) => svg("path", { d: `M${x} ${y - SIZE - 1}L${x + SIZE + 1} ${y + SIZE}L${x - SIZE - 1} ${y + SIZE}Z` }),
  "other-c": (x, y) => svg("path", { d: `M${x} ${y - SIZE - 2}L${x + SIZE + 2} ${y}L${x} ${y + SIZE + 2}L${x - SIZE - 2} ${y}Z` }),
  "other-d": (x, y) => svg("rect", { x: x - SIZE, y: y - SIZE, width: 2 * SIZE, height: 2 * SIZE }),
  "other-e": (x, y) => svg("path", { d: `M${x} ${y + SIZE + 1}L${x + SIZE + 1} ${y - SIZE}L${x - SIZE - 1} ${y - SIZE}Z` }),
  "other-f": (x, y) => svg("path", { d: `M${x - SIZE} ${y}H${x + SIZE}M${x} ${y - SIZE}V${y + SIZE}` }),
};

/**
 * Return the plot with its legend.
 * `series` are {look, title, points: [{x, y, words}]}: x the ratio of latencies, y the score lost. `limit` is the largest y allowed, or null.
 */
export function scatter({ title, series, limit = null }) {
  const [wide, tall] = matchMedia("(max-width: 40rem)").matches ? [360, 320] : [680, 360]; // as wide as it will be shown: text keeps its size
  const points = series.flatMap(({ points: some }) => some);
  const across = scale([1, ...points.map(({ x }) => x)], LEFT, wide - RIGHT);
  const up = scale([0, ...(limit === null ? [] : [limit]), ...points.map(({ y }) => y)], tall - BOTTOM, TOP);
  const id = `plot-${Math.random().toString(36).slice(2)}`;
  const plot = svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-labelledby": `${id}-title ${id}-desc`, class: "scatter" },
    svg("title", { id: `${id}-title` }, title),
    svg("desc", { id: `${id}-desc` }, points.map(({ words }) => words).join("; ") || "No engine yet."),
    across.ticks.map((value) => [
      svg("line", { x1: across.at(value), x2: across.at(value), y1: TOP, y2: tall - BOTTOM, class: value === 1 ? "one" : "grid" }),
      svg("text", { x: across.at(value), y: tall - BOTTOM + 18, "text-anchor": "middle" }, tick(value, across.step))]),
    up.ticks.map((value) => [
      svg("line", { x1: LEFT, x2: wide - RIGHT, y1: up.at(value), y2: up.at(value), class: value === 0 ? "one" : "grid" }),
      svg("text", { x: LEFT - 8, y: up.at(value) + 4, "text-anchor": "end" }, tick(value, up.step))]),
    limit === null ? null : [
      svg("line", { x1: LEFT, x2: wide - RIGHT, y1: up.at(limit), y2: up.at(limit), class: "limit" }),
      svg("text", { x: wide - RIGHT - 4, y: up.at(limit) - 6, "text-anchor": "end", class: "limit-word" }, "allowed by the budget")],
    svg("text", { x: (LEFT + wide - RIGHT) / 2, y: tall - 8, "text-anchor": "middle", class: "axis" }, "latency, baseline = 1 (left is faster)"),
    svg("text", { x: 12, y: (TOP + tall - BOTTOM) / 2, "text-anchor": "middle", class: "axis", transform: `rotate(-90 12 ${(TOP + tall - BOTTOM) / 2})` }, "score lost (down is better)"),
    series.map(({ look, points: some }) => some.map(({ x, y, words }) =>
      svg("g", { class: `point ${look}` }, svg("title", {}, words), SHAPES[look](across.at(x), up.at(y))))));
  const legend = h("ul", { class: "legend" }, series.filter(({ points: some }) => some.length).map(({ look, title: name }) =>
    h("li", {}, svg("svg", { viewBox: "0 0 20 20", width: 20, height: 20, "aria-hidden": "true" }, svg("g", { class: `point ${look}` }, SHAPES[look](10, 10))), name)));
  return h("figure", { class: "plot" }, plot, h("figcaption", {}, legend));
}

// A linear scale with round ticks and a margin beyond the values.
function scale(values, from, to) {
  let low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.001;
  low -= margin;
  high += margin;
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(n === 0 ? 0 : n * step);
  return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks: ticks.map((value) => (Math.abs(value - 1) < step / 1e6 ? 1 : value)), step };
}

const tick = (value, step) => value.toFixed(Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))));

function star(x, y) {
  const corners = Array.from({ length: 10 }, (_, index) => {
    const radius = index % 2 ? 4.5 : 11, angle = (Math.PI * index) / 5 - Math.PI / 2;
    return `${(x + radius * Math.cos(angle)).toFixed(2)} ${(y + radius * Math.sin(angle)).toFixed(2)}`;
  });
  return `M${corners.join("L")}Z`;
}
