// SPDX-License-Identifier: Apache-2.0
// While the avatar is away its last good picture stays, and breathes: a sharp one, with the eyes open and the mouth at rest.

const EVERY_MS = 1000;
const SIZE = 64;             // pixels a side in which sharpness is measured
const NEARLY = 0.97;         // of the sharpest: good enough to be the newer one
const OLD_MS = 20000;        // an older one no longer shows the room's light, or another character
const KEEP_MS = 60000;       // how often it is stored for the next start

export class Still {
  constructor(canvas, picture) {
    this.canvas = canvas;
    this.picture = picture;
    this.key = `flowact.still ${location.pathname}`;
    this.scratch = document.createElement("canvas");
    this.scratch.width = this.scratch.height = SIZE;
    this.pixels = this.scratch.getContext("2d", { alpha: false, willReadFrequently: true });
    this.best = 0;
    this.takenMs = this.measuredMs = this.keptMs = -Infinity;
    this.there = false;
  }

  // Called after a frame was drawn. calm: neither speaking nor of reduced quality.
  offer(now, calm) {
    if (now - this.measuredMs < EVERY_MS) return;
    this.measuredMs = now;
    this.best *= 0.995;
    if (!calm && now - this.takenMs < OLD_MS) return;
    const energy = this.sharpness();
    if (energy < NEARLY * this.best && now - this.takenMs < OLD_MS) return;
    this.best = energy;
    this.takenMs = now;
    this.draw(this.picture);
    if (now - this.keptMs > KEEP_MS) {
      this.keptMs = now;
      this.keep();
    }
  }

  // Mean squared difference of neighbours: lids that close and frames that blur have less of it.
  sharpness() {
    this.pixels.drawImage(this.picture, 0, 0, SIZE, SIZE);
    const { data } = this.pixels.getImageData(0, 0, SIZE, SIZE);
    let sum = 0;
    for (let i = 0; i < data.length - 4 * SIZE; i += 4) {
      const across = data[i + 1] - data[i + 5], down = data[i + 1] - data[i + 1 + 4 * SIZE];
      sum += across * across + down * down;
    }
    return sum / (SIZE * SIZE);
  }

  draw(image) {
    if (this.canvas.width !== image.width || this.canvas.height !== image.height) {
      this.canvas.width = image.width;
      this.canvas.height = image.height;
    }
    this.canvas.getContext("2d", { alpha: false }).drawImage(image, 0, 0);
    this.there = true;
  }

  keep() {
    try {
      localStorage.setItem(this.key, this.canvas.toDataURL("image/jpeg", 0.85));
    } catch (error) {
      this.failure = String(error);   // full or switched off: the next start begins without a picture
    }
  }

  // Of the last time this screen was on, or the server's last frame. True when there is one.
  async restore() {
    let bytes = null;
    try {
      const text = localStorage.getItem(this.key);
      if (text) bytes = Uint8Array.from(atob(text.slice(text.indexOf(",") + 1)), (c) => c.charCodeAt(0));
    } catch (error) {
      this.failure = String(error);
    }
    try {
      const blob = bytes ? new Blob([bytes], { type: "image/jpeg" }) : await lastFrame();
      const bitmap = blob && await createImageBitmap(blob);
      if (bitmap && !this.there) this.draw(bitmap);
    } catch (error) {
      this.failure = String(error);
    }
    return this.there;
  }
}

async function lastFrame() {
  const answer = await fetch("snapshot.jpg", { cache: "no-store" });
  return answer.ok ? answer.blob() : null;
}
