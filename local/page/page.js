"use strict";

const POLL_MILLISECONDS = 300;
const byId = (id) => document.getElementById(id);
const theme = matchMedia("(prefers-color-scheme: dark)");
let seen = ""; // the version of what is shown
let latest = null;
let cards = new Map(); // metric -> its graph

/** Make an element. What comes from files and names is text, never markup. */
function element(tag, kind, ...content) {
  const made = document.createElement(tag);
  made.className = kind;
  made.append(...content);
  return made;
}

const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);

async function poll() {
  const answer = await fetch(`/state?seen=${encodeURIComponent(seen)}`).catch(() => null);
  byId("ended").hidden = answer !== null;
  setTimeout(poll, POLL_MILLISECONDS);
  if (answer?.status === 200) show(await answer.json());
}

function show(state) {
  [latest, seen] = [state, state.version];
  const counts = Object.entries(state.counts).map(([name, n]) => element("span", name, `${n} ${name}`));
  byId("counts").replaceChildren(...counts.flatMap((count, i) => [i < 2 ? " = " : " + ", count]).slice(1));
  for (const button of byId("datadog").querySelectorAll("button")) {
    button.ariaPressed = button.dataset.post === `/datadog/${state.datadog}`;
  }
  byId("prefix").textContent = state.prefix;
  byId("files").replaceChildren(...state.files.map(inShort));
  byId("refused").replaceChildren(...state.refused.map(inFull));
  byId("waiting").replaceChildren(...state.waiting.map(inFull));
  drawMetrics();
}

/** Return the light or dark value of a colour in the style sheet. */
function colour(name) {
  const probe = byId("metrics");
  probe.style.color = `var(--${name})`;
  const resolved = getComputedStyle(probe).color;
  probe.style.color = "";
  return resolved;
}

function drawMetrics() {
  const before = [...cards.keys()].join();
  const make = () => element("article", "", element("h3", ""), element("div", "chart"));
  cards = new Map(latest.metrics.map(({ name }) => [name, cards.get(name) ?? make()]));
  // Only if they change: moving a graph closes its tooltip
  if ([...cards.keys()].join() !== before) byId("metrics").replaceChildren(...cards.values());
  for (const metric of latest.metrics) {
    const { firstChild: head, lastChild: chart } = cards.get(metric.name);
    head.replaceChildren(metric.name, element("small", "", metric.about));
    drawChart(chart, metric);
  }
}

function drawChart(chart, metric) {
  const [ink, line] = [colour("faint"), colour("line")];
  const traces = metric.series.map(({ job, points }, index) => ({
    name: job,
    x: points.map(([second]) => second * 1000),
    y: points.map(([, value]) => value),
    mode: points.length > 500 ? "lines" : "lines+markers", // a marker each would take seconds
    line: { color: colour(`line-${index % 6}`), width: 1.5 },
    marker: { size: 5 },
  }));
  const axis = { gridcolor: line, linecolor: line, nticks: 5, zeroline: false };
  Plotly.react(
    chart,
    traces,
    {
      font: { color: ink, family: "system-ui, sans-serif", size: 12 },
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("paper"), bordercolor: line },
      legend: { orientation: "h", y: -0.15 },
      margin: { l: 45, r: 10, t: 10, b: 25 },
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      shapes: latest.outages.map(([began, ended]) => ({
        type: "rect",
        x0: began * 1000,
        x1: ended * 1000,
        yref: "paper",
        y0: 0,
        y1: 1,
        fillcolor: colour("bad"),
        opacity: 0.12,
        line: { width: 0 },
      })),
      showlegend: true,
      uirevision: "kept",
      xaxis: { ...axis, range: latest.range.map((second) => second * 1000), tickangle: 0, tickformat: "%H:%M:%S", type: "date" },
      yaxis: { ...axis, separatethousands: true },
    },
    { displayModeBar: false, responsive: true },
  );
}

function inShort(file) {
  const outcome = element("span", `outcome ${file.outcome}`, file.outcome);
  const time = file.seconds === null ? "" : element("span", "faint", `after ${duration(file.seconds)}`);
  return element("li", "", outcome, element("code", "", file.name), time);
}

function inFull(file) {
  const line = element("li", "", element("code", "", file.name), element("p", file.outcome, file.reason));
  if (file.outcome === "waiting") {
    const dead = "It is in the dead-letter queue: `ddg-ops dead replay` sends it again.";
    const end = file.tries < latest.max_tries ? "" : dead;
    line.append(element("p", "faint", `Tries so far: ${file.tries}. ${end}`));
  }
  if (file.beginning) line.append(element("pre", "", file.beginning));
  return line;
}

document.addEventListener("click", ({ target }) => {
  if (target.dataset.post) fetch(target.dataset.post, { method: "POST" }).catch(() => {});
});
theme.addEventListener("change", () => latest && drawMetrics());
poll();
