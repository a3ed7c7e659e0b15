"use strict";

const POLL_MILLISECONDS = 300;
const byId = (id) => document.getElementById(id);
let seen = "";
let latest = null;

/** Make an element. What comes from files and names is text, never markup. */
function element(tag, kind, ...content) {
  const made = document.createElement(tag);
  made.className = kind;
  made.append(...content);
  return made;
}

const ago = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
const theme = matchMedia("(prefers-color-scheme: dark)");
const cards = new Map(); // by metric

async function poll() {
  const answer = await fetch(`/state?seen=${encodeURIComponent(seen)}`).catch(() => null);
  byId("ended").hidden = answer !== null;
  setTimeout(poll, POLL_MILLISECONDS);
  if (answer?.status === 200) show(await answer.json());
}

function show(state) {
  [latest, seen] = [state, state.version];
  const parts = Object.entries(state.counts).map(([name, n]) => element("span", name, `${n} ${name}`));
  const sum = parts.flatMap((part, index) => (index ? [" + ", part] : [part]));
  byId("counts").replaceChildren(`${state.written} written = `, ...sum);
  for (const button of byId("datadog").querySelectorAll("button")) {
    button.ariaPressed = button.dataset.post === `/datadog/${state.datadog}`;
  }
  byId("prefix").textContent = state.prefix;
  for (const list of ["refused", "waiting", "files"]) {
    byId(list).replaceChildren(...state[list].map(list === "files" ? briefly : inFull));
  }
  drawMetrics();
}

function tries(file) {
  const dead = "It is in the dead-letter queue: `ddg-ops dead replay` sends it again.";
  return `Tries so far: ${file.tries}. ${file.tries < latest.max_tries ? "" : dead}`;
}

/** Return a colour of the style sheet's, as it is in light or dark. */
function colour(name) {
  const probe = byId("metrics");
  probe.style.color = `var(--${name})`;
  const resolved = getComputedStyle(probe).color;
  probe.style.color = "";
  return resolved;
}

function drawMetrics() {
  const names = new Set(latest.metrics.map((metric) => metric.name));
  for (const [name, card] of cards) {
    if (!names.has(name)) {
      card.remove();
      cards.delete(name);
    }
  }
  for (const metric of latest.metrics) {
    if (!cards.has(metric.name)) cards.set(metric.name, element("article", ""));
    const card = cards.get(metric.name);
    if (!card.isConnected) {
      card.append(element("h3", ""), element("div", "chart"));
      const next = [...byId("metrics").children].find((other) => other.dataset.name > metric.name);
      card.dataset.name = metric.name;
      byId("metrics").insertBefore(card, next ?? null);
    }
    card.firstChild.replaceChildren(metric.name, element("small", "", metric.about));
    drawChart(card.lastChild, metric);
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

function briefly(file) {
  const time = file.seconds === null ? "" : element("span", "faint", `after ${ago(file.seconds)}`);
  return element("li", "", element("span", `outcome ${file.outcome}`, file.outcome), element("code", "", file.name), time);
}

function inFull(file) {
  const line = element("li", "", element("code", "", file.name), element("p", file.outcome, file.reason));
  if (file.outcome === "waiting") line.append(element("p", "faint", tries(file)));
  if (file.beginning) line.append(element("pre", "", file.beginning));
  return line;
}

document.addEventListener("click", ({ target }) => {
  if (target.dataset.post) fetch(target.dataset.post, { method: "POST" }).catch(() => {});
});
theme.addEventListener("change", () => latest && drawMetrics());
poll();
