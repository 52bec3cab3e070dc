// SPDX-License-Identifier: Apache-2.0
// What is around the picture: its own colours, or a ground that the robot or somebody at the screen has chosen.

const ACROSS = 16;   // colours along an edge: with more, stripes would show

const HUE_MS = 5000, DARK = 46;   // of 255: the brightest channel, so that text on it can be read

// The bars beside the picture (or the one above it) take its edge colours, so it seems to go on.
export class Backdrop {
  constructor(canvas, shade) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.shade = shade;
    this.paintedAt = this.hueAt = -Infinity;
    this.pixel = new OffscreenCanvas(1, 1).getContext("2d", { alpha: false, willReadFrequently: true });
    addEventListener("resize", () => { this.paintedAt = -Infinity; });
  }

  paint(picture, now) {
    if (now - this.paintedAt < 500) return;
    this.paintedAt = now;
    const { clientWidth: w, clientHeight: h } = picture;
    const { width: W, height: H } = picture;
    document.body.style.setProperty("--ratio", W / H);
    const wide = w * H >= h * W;
    const size = wide ? [2, ACROSS] : [ACROSS, 2];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) [this.canvas.width, this.canvas.height] = size;
    const bar = Math.max(0, wide ? (w - (h * W) / H) / 2 : h - (w * H) / W);
    this.shade.style.setProperty("--bar", `${bar}px`);
    this.shade.classList.toggle("tall", !wide);
    this.paintCounter(picture, now);
    const c = this.context;
    const edge = 3;
    c.imageSmoothingEnabled = true;
    c.imageSmoothingQuality = "high";
    if (wide) {
      c.drawImage(picture, 0, 0, edge, H, 0, 0, 1, ACROSS);
      c.drawImage(picture, W - edge, 0, edge, H, 1, 0, 1, ACROSS);
    } else {
      c.drawImage(picture, 0, 0, W, edge, 0, 0, ACROSS, 2);
    }
  }

  // The counter of an upright screen: dark, and of the hue of what stands behind it.
  paintCounter(picture, now) {
    if (now - this.hueAt < HUE_MS) return;
    this.hueAt = now;
    this.pixel.imageSmoothingQuality = "high";
    this.pixel.drawImage(picture, 0, picture.height * 0.9, picture.width, picture.height * 0.1, 0, 0, 1, 1);
    const rgb = [...this.pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
    const scale = DARK / Math.max(DARK, ...rgb);
    document.body.style.setProperty("--counter-colour", `rgb(${rgb.map((value) => Math.round(value * scale)).join(" ")})`);
  }
}

// A ground of one colour, or the robot's picture: the avatar's picture is then a framed one (style.css).
export function showGround(element, background) {
  const chosen = background === "picture" || /^#[0-9a-f]{6}$/.test(background);
  document.body.classList.toggle("grounded", chosen);
  element.style.backgroundColor = background.startsWith("#") && chosen ? background : "";
  element.style.backgroundImage = background === "picture" ? "url(background)" : "";
}
