"use strict";

// Plays speech while it comes, draws it, and keeps it for a file.

const RATE = 24000;

class Player {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = null;
    this.clear();
  }

  clear() {
    this.parts = [];
    this.samples = 0;
    this.peaks = [];
    this.sources = new Set();
    this.next = 0;
    this.left = new Uint8Array(0);
    this.draw();
  }

  // To be called from a click or a key, without which browsers play nothing.
  async open() {
    this.context = this.context || new AudioContext({ sampleRate: RATE });
    await this.context.resume();
    this.next = 0;
  }

  // Bytes of 16-bit little-endian samples, cut anywhere.
  add(bytes) {
    const all = new Uint8Array(this.left.length + bytes.length);
    all.set(this.left);
    all.set(bytes, this.left.length);
    const whole = all.length & ~1;
    this.left = all.slice(whole);
    const samples = new Int16Array(all.buffer.slice(0, whole));
    if (!samples.length) return;
    this.parts.push(samples);
    this.samples += samples.length;
    for (let at = 0; at < samples.length; at += 240) {
      let peak = 0;
      for (let i = at; i < Math.min(at + 240, samples.length); i++) {
        peak = Math.max(peak, Math.abs(samples[i]));
      }
      this.peaks.push(peak / 32768);
    }
    this.play(samples);
    this.draw();
  }

  play(samples) {
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.getChannelData(0).set(Float32Array.from(samples, (value) => value / 32768));
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    // What is late starts at once.
    this.next = Math.max(this.next, this.context.currentTime + 0.02);
    source.start(this.next);
    this.next += buffer.duration;
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  stop() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
  }

  get seconds() {
    return this.samples / RATE;
  }

  draw() {
    const { width, height } = this.canvas;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = getComputedStyle(this.canvas).getPropertyValue("--accent") || "#0a5dc2";
    const bar = width / Math.max(this.peaks.length, 300);
    this.peaks.forEach((peak, i) => {
      const tall = Math.max(1, peak * height);
      pen.fillRect(i * bar, (height - tall) / 2, Math.max(1, bar - 0.5), tall);
    });
    const told = this.samples ? `${this.seconds.toFixed(1)} seconds of speech` : "nothing yet";
    this.canvas.setAttribute("aria-label", `Waveform: ${told}`);
  }

  file() {
    return wav(this.parts, RATE);
  }
}

// A WAV file of arrays of 16-bit samples.
function wav(parts, rate) {
  const bytes = parts.reduce((sum, part) => sum + 2 * part.length, 0);
  const view = new DataView(new ArrayBuffer(44));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, bytes, true);
  return new Blob([view, ...parts], { type: "audio/wav" });
}
