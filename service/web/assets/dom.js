// Elements from plain values. Text is always text: nothing here reads a string as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element. `on...` properties are listeners, true is an empty attribute, null and false are left out. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...kept(children));
  return element;
}

function kept(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

/** Put these children in the place of those that an element has. */
export function fill(element, ...children) {
  element.replaceChildren(...kept(children));
}

/** Say a sentence to those who hear the page. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/**
 * Return a part of the page that is drawn anew only where what it shows has changed. What has the focus then, and how far things are
 * scrolled, stays; a `data-tail` that was at its end goes on to the new one.
 */
export function part(draw, properties = {}) {
  const element = h("div", properties);
  let shown;
  return {
    element,
    show(value) {
      const text = JSON.stringify(value);
      if (text === shown) return;
      shown = text;
      const goBack = placeIn(element);
      fill(element, draw(value));
      goBack();
    },
  };
}

const SCROLLED = ".scrolls, pre";
const NEAR = 8; // pixels from the end

// Remember where a person is in an element; the answer takes them there again once it is drawn anew.
function placeIn(element) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const alike = (one) => [...element.querySelectorAll(one.tagName)].filter((other) => nameOf(other) === nameOf(one));
  const at = focused && alike(focused).indexOf(focused);
  const places = [...element.querySelectorAll(SCROLLED)].map((one) => [one.scrollLeft, one.scrollTop, isAtEnd(one)]);
  return () => {
    [...element.querySelectorAll(SCROLLED)].forEach((one, index) => {
      const [left, top, wasAtEnd] = places[index] ?? [0, 0, true];
      one.scrollLeft = left;
      one.scrollTop = "tail" in one.dataset && wasAtEnd ? one.scrollHeight : top;
    });
    if (focused) alike(focused)[at]?.focus({ preventScroll: true });
  };
}

const isAtEnd = (one) => one.scrollHeight - one.scrollTop - one.clientHeight < NEAR;
const nameOf = (one) => one.dataset.key ?? one.getAttribute("href") ?? one.getAttribute("aria-label") ?? one.textContent;

/**
 * Return a table that a phone shows as one card a row. `columns` are {title, cell(row), number}.
 * Roles are stated, since a table that is laid out as cards would lose them.
 */
export function table(caption, columns, rows) {
  const heading = ({ title, number }) => h("th", { scope: "col", role: "columnheader", class: number ? "number" : null }, title);
  const cell = (row, { title, number, cell: read }, index) =>
    index === 0 ? h("th", { scope: "row", role: "rowheader" }, read(row)) : h("td", { role: "cell", "data-title": title, class: number ? "number" : null }, h("span", {}, read(row)));
  return h("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": caption },
    h("table", { role: "table" },
      h("caption", {}, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map(heading))),
      h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row", class: row.marked ? "marked" : null }, columns.map((column, index) => cell(row, column, index)))))));
}

/** Return what an error says, as plain values. */
export const told = (error) => ({ title: error.title, detail: error.detail || error.message, fix: error.fix });

/** The same on a page that asks again by itself. */
export const toldMeanwhile = (error) => (error.status ? told(error) : { ...told(error), fix: "See whether it is running. This page asks again by itself." });

/** Return a problem in the server's words, with what to do about it. */
export function problemBox(problem, ...more) {
  return h("div", { class: "problem", role: "alert" },
    h("strong", {}, problem.title || "Something went wrong"),
    h("p", {}, problem.detail || problem.message || ""),
    problem.fix ? h("p", { class: "fix" }, h("span", {}, "What to do: "), problem.fix) : null,
    more);
}
