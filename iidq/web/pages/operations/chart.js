// A small line chart: an SVG, a legend with the newest values, and the numbers as a table.

import { element, setText, time } from "../shared/elements.js";
import { minute as shownMinute } from "../shared/words.js";

const WIDTH = 600;
const HEIGHT = 120;
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Return a ceiling that does not move with every value: 1, 2 or 5 times a power of ten.
function ceiling(values) {
  const most = Math.max(...values.filter((value) => value !== null), 0);
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most);
}

function path(values, top) {
  const step = WIDTH / Math.max(1, values.length - 1);
  let drawn = "";
  let isOpen = false;
  values.forEach((value, index) => {
    if (value === null) {
      isOpen = false;
      return;
    }
    const x = (index * step).toFixed(1);
    const y = (HEIGHT - (value / top) * HEIGHT).toFixed(1);
    // A value between two gaps is a dot.
    const alone = !isOpen && (values[index + 1] ?? null) === null;
    drawn += `${isOpen ? "L" : "M"}${x} ${y}${alone ? "h.01" : ""}`;
    isOpen = true;
  });
  return drawn;
}

export class Chart {
  // `series` is [{name, kind}]; the class `kind` sets colour and dashes.
  constructor(figure, title, series, format) {
    this.format = format;
    this.title = title;
    this.series = series;
    this.top = element("span", { class: "number" }, " ");
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    });
    for (const part of [0, 0.5, 1]) {
      const y = HEIGHT * part;
      this.drawing.append(svg("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    }
    this.lines = series.map(({ kind }) => svg("path", { class: `line ${kind}`, d: "" }));
    this.drawing.append(...this.lines);
    this.latest = series.map(() => element("b", { class: "number" }, "–"));
    const legend = element(
      "ul",
      { class: "legend" },
      ...series.map(({ name, kind }, index) => {
        const key = svg("svg", { viewBox: "0 0 24 8", class: "key", "aria-hidden": "true" });
        key.append(svg("path", { class: `line ${kind}`, d: "M0 4H24" }));
        return element("li", {}, key, `${name} `, this.latest[index]);
      }),
    );
    this.body = element("tbody");
    const head = element(
      "tr",
      {},
      element("th", { scope: "col" }, "Minute"),
      ...series.map(({ name }) => element("th", { scope: "col", class: "right" }, name)),
    );
    this.details = element(
      "details",
      { ontoggle: () => this.fillTable() },
      element("summary", {}, "Numbers"),
      element(
        "div",
        { class: "wide tall", tabindex: "0", role: "region", "aria-label": `${title}: numbers` },
        element("table", {}, element("thead", {}, head), this.body),
      ),
    );
    figure.append(
      element("figcaption", {}, element("h2", {}, title), this.top),
      this.drawing,
      element(
        "div",
        { class: "axis soft", "aria-hidden": "true" },
        element("span", {}, "an hour ago"),
        element("span", {}, "last minute"),
      ),
      legend,
      this.details,
    );
  }

  show(minutes, columns) {
    this.minutes = minutes;
    this.columns = columns;
    const top = ceiling(columns.flat());
    setText(this.top, `top ${this.format(top)}`);
    this.lines.forEach((line, index) => line.setAttribute("d", path(columns[index], top)));
    const newest = columns.map((values) => values.findLast((value) => value !== null) ?? null);
    newest.forEach((value, index) => setText(this.latest[index], value === null ? "–" : this.format(value)));
    const values = newest.map((value, index) => {
      return `${this.series[index].name} ${value === null ? "none" : this.format(value)}`;
    });
    this.drawing.setAttribute("aria-label", `${this.title}, last hour. Newest: ${values.join(", ")}`);
    this.fillTable();
  }

  fillTable() {
    if (!this.details.open || !this.minutes) return;
    this.body.replaceChildren(
      ...this.minutes
        .map((minute, row) =>
          element(
            "tr",
            {},
            element("th", { scope: "row", class: "number" }, time(minute, shownMinute(minute))),
            ...this.columns.map((values) =>
              element("td", { class: "right number" }, values[row] === null ? "–" : this.format(values[row])),
            ),
          ),
        )
        .reverse(),
    );
  }
}
