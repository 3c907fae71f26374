"use strict";

// Records from the microphone into a WAV file.

class Microphone {
  constructor() {
    this.parts = [];
    this.stream = null;
  }

  async start() {
    this.parts = [];
    const quality = { echoCancellation: false, noiseSuppression: false, channelCount: 1 };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: quality });
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule("page/recorder-worklet.js");
    const node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = (message) => this.parts.push(message.data);
    this.context.createMediaStreamSource(this.stream).connect(node);
  }

  async stop() {
    for (const track of this.stream.getTracks()) track.stop();
    this.stream = null;
    await this.context.close();
    return wav(this.parts, RATE);
  }

  get seconds() {
    return this.parts.reduce((sum, part) => sum + part.length, 0) / RATE;
  }
}
