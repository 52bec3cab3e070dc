// SPDX-License-Identifier: Apache-2.0
// The figures of this page: for its overlay, its server, tests and the curious.

const SKEW_SAMPLES = 600;

function quantile(sorted, q) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

// ms, pts drawn - pts heard, one per screen refresh while sound leads.
export class Skew {
  constructor() { this.values = []; }

  reset() { this.values = []; }

  add(ms) {
    this.values.push(ms);
    if (this.values.length > SKEW_SAMPLES) this.values.splice(0, this.values.length - SKEW_SAMPLES);
  }

  figures() {
    const size = this.values.map(Math.abs).sort((a, b) => a - b);
    const signed = [...this.values].sort((a, b) => a - b);
    return { count: size.length, p50: quantile(size, 0.5), p95: quantile(size, 0.95), signed: quantile(signed, 0.5) };
  }
}

// stats: of the page (app.js); state: the server's.
export function showDetails(list, stats, state) {
  const ms = (value) => (value === null ? "–" : `${value.toFixed(0)} ms`);
  const rows = [
    ["connection", `${stats.connection}, ${stats.connections} opened`],
    ["picture", `${stats.size}, ${stats.fps} fps`],
    ["frames", `${stats.drawn} drawn, ${stats.late} late, ${stats.missing} dropped`],
    ["clock", stats.clock],
    ["sound", `${stats.audio}, ${stats.underruns} underruns, ${stats.skips} skips`],
    ["pace", `${((stats.pace - 1) * 100).toFixed(2)} %`],
    ["buffer", ms(stats.bufferMs)],
    ["sound – picture p50, p95", `${ms(stats.skew.p50)}, ${ms(stats.skew.p95)}`],
    ["screen stays on", stats.awake],
    ...Object.entries(state).slice(0, 40).map(([name, value]) => [
      name, typeof value === "object" && value !== null ? JSON.stringify(value) : String(value),
    ]),
  ];
  list.replaceChildren(...rows.flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value.slice(0, 300);
    return [dt, dd];
  }));
}
