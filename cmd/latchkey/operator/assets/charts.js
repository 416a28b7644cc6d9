// Draws bars over time with uPlot. Each chart has its numbers in a table
// beside it, so the picture itself is one image to a screen reader.
import { $, minuteOfDay } from "./dom.js";

const charts = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// bars draws values over times in seconds.
export function bars(id, label, times, values) {
  const data = [times, values];
  const host = $(id);
  let chart = charts.get(id);
  if (!chart) {
    host.setAttribute("role", "img");
    chart = { host };
    charts.set(id, chart);
    new ResizeObserver(() => chart.plot?.setSize(size(host))).observe(host);
  }
  host.setAttribute("aria-label", label);
  chart.draw = () => {
    chart.plot?.destroy();
    chart.plot = new window.uPlot(options(host, times[1] - times[0]), data, host);
  };
  if (chart.plot) chart.plot.setData(data);
  else chart.draw();
}

dark.addEventListener("change", () => charts.forEach((c) => c.draw()));

const size = (host) => ({ width: Math.max(host.clientWidth, 200), height: 190 });

function options(host, width) {
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  return {
    ...size(host),
    cursor: { show: false },
    legend: { show: false },
    scales: { x: { time: true, range: (_, first, last) => [first, last + width] }, y: { range: (_, __, max) => [0, Math.max(max * 1.1, 4)] } },
    axes: [
      { ...axis, grid: { show: false }, values: (_, ticks) => ticks.map((t) => minuteOfDay(t * 1000)) },
      { ...axis, size: 55, values: (_, ticks) => ticks.map((n) => (Number.isInteger(n) ? short(n) : "")) },
    ],
    series: [{}, {
      fill: colour("--bar"), stroke: colour("--bar"), width: 0, points: { show: false },
      paths: window.uPlot.paths.bars({ size: [0.8, 40], align: 1 }),
    }],
  };
}

const short = (n) => (n >= 1e6 ? `${n / 1e6} M` : n >= 1e4 ? `${n / 1e3} k` : String(n));
