"use strict";

// Hands the microphone's samples to the page.
class Recorder extends AudioWorkletProcessor {
  process(inputs) {
    const [channel] = inputs[0];
    if (channel) this.port.postMessage(Int16Array.from(channel, (value) => {
      return Math.round(Math.max(-1, Math.min(1, value)) * 32767);
    }));
    return true;
  }
}

registerProcessor("recorder", Recorder);
