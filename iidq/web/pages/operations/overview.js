// The overview: jobs by state, rates, workers, parts, failures by cause.

import { byId, element, setText } from "../shared/elements.js";
import { count, duration } from "../shared/words.js";
import { retryCause } from "./actions.js";
import { Chart } from "./chart.js";
import { liveTime, secondsSince } from "./clock.js";
import { operations } from "./session.js";

// No tenths, which would flicker.
const whole = (seconds) => (seconds < 120 ? `${Math.max(0, Math.round(seconds))} s` : duration(seconds));

let charts = null;

function drawCharts() {
  const perMinute = (value) => count(value);
  charts = {
    rates: new Chart(
      byId("chart-rates"),
      "Jobs per minute",
      [
        { name: "Submitted", kind: "first" },
        { name: "Completed", kind: "second" },
        { name: "Failed", kind: "third" },
      ],
      perMinute,
    ),
    waited: new Chart(
      byId("chart-waited"),
      "Wait in line",
      [
        { name: "Half within", kind: "first" },
        { name: "95 % within", kind: "third" },
      ],
      duration,
    ),
    ran: new Chart(
      byId("chart-ran"),
      "Run time",
      [
        { name: "Half within", kind: "first" },
        { name: "95 % within", kind: "third" },
      ],
      duration,
    ),
  };
}

export function showOverview(snapshot) {
  if (!charts) drawCharts();
  const { queue, workers, lately } = snapshot;
  for (const node of document.querySelectorAll("[data-count]")) setText(node, count(queue[node.dataset.count]));
  const note = (id, value, words) => setText(byId(id), value === null ? " " : words(value));
  note("oldest-waiting", queue.oldestWaitingSeconds, (age) => `first for ${duration(Math.max(0, age))}`);
  note("oldest-active", queue.oldestActiveSeconds, (age) => `longest ${duration(Math.max(0, age))}`);
  note("next-due", queue.nextDueAt, (due) =>
    secondsSince(due) >= 0 ? "due now" : `next in ${duration(-secondsSince(due))}`,
  );
  showWorkers(workers);
  showParts(snapshot);
  // Read less often than the snapshot; null until the first reading.
  if (lately) showLately(lately);
}

function showLately(lately) {
  // Leave out the present minute, which is incomplete.
  const rates = lately.rates.slice(0, -1);
  const last = rates.at(-1);
  setText(byId("rate-completed"), `${count(last.completed)} last minute`);
  setText(byId("rate-failed"), `${count(last.failed)} last minute`);
  charts.rates.show(
    rates.map((rate) => rate.minute),
    ["enqueued", "completed", "failed"].map((name) => rates.map((rate) => rate[name])),
  );
  const minutes = rates.map((rate) => rate.minute);
  const sampled = new Map(lately.durations.map((sample) => [sample.minute, sample]));
  const column = (name, index) => minutes.map((minute) => sampled.get(minute)?.[name]?.[index] ?? null);
  charts.waited.show(minutes, [column("waited", 0), column("waited", 1)]);
  charts.ran.show(minutes, [column("ran", 0), column("ran", 1)]);
  setText(
    byId("sample"),
    `Wait and run time are from the rows of the last ${count(lately.sample)} jobs submitted in each minute. ` +
      "The workers’ /metrics have the duration of each step.",
  );
  showCauses(lately);
}

// Keep rows by their key, so that the focus stays and nothing jumps.
function keepRows(body, items, key, make, update, whenNone, columns) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const name = key(item);
    const row = known.get(name) || make(item);
    row.dataset.key = name;
    update(row, item);
    return row;
  });
  if (!rows.length)
    rows.push(
      known.get("") || element("tr", { "data-key": "" }, element("td", { colspan: columns, class: "soft" }, whenNone)),
    );
  const same = rows.length === body.children.length && rows.every((row, index) => row === body.children[index]);
  if (!same) body.replaceChildren(...rows);
}

function showWorkers(workers) {
  keepRows(
    byId("workers"),
    workers,
    (worker) => worker.workerId,
    (worker) =>
      element(
        "tr",
        {},
        element(
          "th",
          { scope: "row" },
          element("span", { class: "mono" }, worker.workerId),
          element("small", { class: "soft" }, worker.version ? `iidq ${worker.version}` : "no longer known"),
        ),
        element("td", { class: "number" }, element("span", { class: "badge" }), " ", element("span")),
        element("td", { class: "right number" }),
        element("td", { class: "right number" }),
        element("td", { class: "number" }),
        element("td"),
        element("td", {}, worker.startedAt ? liveTime(worker.startedAt) : "–"),
      ),
    (row, worker) => {
      const [mark, seen] = row.children[1].querySelectorAll("span");
      mark.className = `badge ${worker.alive ? "completed" : "failed"}`;
      setText(mark, worker.alive ? "alive" : "silent");
      setText(seen, worker.seenSeconds === null ? "" : `${whole(worker.seenSeconds)} ago`);
      setText(
        row.children[2],
        worker.running === null ? "–" : `${count(worker.running)} / ${count(worker.concurrency)}`,
      );
      setText(row.children[3], count(worker.leases));
      setText(
        row.children[4],
        worker.leaseSeconds === null ? "–" : worker.leaseSeconds < 0 ? "ran out" : `in ${whole(worker.leaseSeconds)}`,
      );
      setText(row.children[5], worker.listening === null ? "–" : worker.listening ? "listens" : "polls");
    },
    "No worker is alive, and none was in the last minute.",
    7,
  );
}

function showParts({ queue, circuit, redis }) {
  const hears =
    queue.workers === 0
      ? "no worker"
      : `${count(queue.listeningWorkers)} of ${count(queue.workers)} workers are woken by new jobs`;
  const parts = [
    ["Database", "reachable", "completed"],
    ["Circuit", circuit, circuit === "closed" ? "completed" : "failed"],
    ["Listeners", hears, queue.listeningWorkers === queue.workers && queue.workers ? "completed" : "delayed"],
    ["Slots", `${count(queue.running)} of ${count(queue.slots)} in use`, ""],
    [
      "Upkeep",
      queue.upkeepAgeSeconds === null ? "never yet" : `${whole(queue.upkeepAgeSeconds)} ago`,
      queue.upkeepAgeSeconds !== null && queue.upkeepAgeSeconds < 60 ? "completed" : "delayed",
    ],
    ["Leases that ran out", count(queue.expiredLeases), queue.expiredLeases ? "failed" : "completed"],
    [
      "Redis",
      { up: "up", off: "not used" }[redis.state] || "unreachable; not needed",
      { up: "completed", off: "" }[redis.state] ?? "delayed",
    ],
  ];
  const list = byId("parts");
  if (list.children.length !== parts.length * 2) {
    list.replaceChildren(...parts.flatMap(([name]) => [element("dt", {}, name), element("dd", { class: "number" })]));
  }
  parts.forEach(([, text, kind], index) => {
    const value = list.children[index * 2 + 1];
    value.className = `number ${kind}`;
    setText(value, text);
  });
}

function showCauses({ causes, mostCounted }) {
  const many = (number) => (number > mostCounted ? `${count(mostCounted)}+` : count(number));
  keepRows(
    byId("causes"),
    causes,
    (cause) => cause.cause,
    ({ cause }) =>
      element(
        "tr",
        {},
        element(
          "th",
          { scope: "row" },
          element(
            "a",
            { class: "mono", href: `${operations}/jobs?state=failed&cause=${encodeURIComponent(cause)}` },
            cause,
          ),
        ),
        element("td", { class: "right number" }),
        element("td", { class: "right number" }),
        element("td", { class: "error" }),
        element(
          "td",
          { class: "right" },
          element(
            "button",
            { class: "small", "aria-label": `Retry all failures of ${cause}`, onclick: () => retryCause(cause) },
            "Retry all",
          ),
        ),
      ),
    (row, figures) => {
      setText(row.children[1], many(figures.lately));
      setText(row.children[2], many(figures.jobs));
      if (row.dataset.latest !== figures.latestId) {
        row.dataset.latest = figures.latestId;
        row.children[3].replaceChildren(
          element("a", { href: `${operations}/jobs/${figures.latestId}` }, liveTime(figures.latestAt)),
          element("span", { class: "clip" }, figures.latestError),
        );
      }
    },
    "No failed job is kept.",
    5,
  );
}
