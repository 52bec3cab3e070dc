// SPDX-License-Identifier: Apache-2.0
// Keeps the screen on while the page is seen. Browsers grant it to https and to this device's own pages.

const AGAIN_MS = 15000;

export class WakeLock {
  constructor() {
    this.state = navigator.wakeLock ? "released" : "unavailable";
    if (!navigator.wakeLock) return;
    document.addEventListener("visibilitychange", () => this.take());
    setInterval(() => this.take(), AGAIN_MS);   // a battery that ran low took it away, and was charged again
    this.take();
  }

  async take() {
    if (document.hidden || this.state === "held") return;
    try {
      const lock = await navigator.wakeLock.request("screen");
      this.state = "held";
      lock.addEventListener("release", () => { this.state = "released"; this.take(); });
    } catch (error) {
      this.state = "refused";
      this.failure = String(error);
    }
  }
}
