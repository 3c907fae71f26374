"use strict";

const $ = (id) => document.getElementById(id);
const player = new Player($("wave"));
const microphone = new Microphone();
let running = null;
let recorded = null;

function headers(more) {
  const key = $("key").value.trim();
  return { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...more };
}

function tell(id, text, bad) {
  $(id).textContent = text;
  $(id).classList.toggle("error", Boolean(bad));
}

async function problem(answer) {
  const body = await answer.json().catch(() => null);
  return (body && body.error && body.error.message) || `The server answered ${answer.status}.`;
}

// What there is

async function look() {
  try {
    const answer = await fetch("ready");
    const told = await answer.json();
    tell("server", answer.ok
      ? `${told.model}: ${told.slots} slots, ${told.live_streams} live streams at a time`
      : `The server is ${told.status}.`);
    if (!answer.ok) setTimeout(look, 1000);
    else await lists();
  } catch {
    tell("server", "The server does not answer.", true);
    setTimeout(look, 2000);
  }
}

async function lists() {
  const answer = await fetch("v1/audio/voices", { headers: headers() });
  const voices = answer.ok ? (await answer.json()).voices : [];
  if (!answer.ok) tell("status", await problem(answer), true);
  for (const [id, fallback] of [["voice", 0], ["voice-0", 0], ["voice-1", 1]]) {
    const chosen = $(id).value || `speaker-${fallback}`;
    $(id).replaceChildren(...voices.map((voice) => {
      const option = document.createElement("option");
      option.value = voice.id;
      option.textContent = voice.name;
      return option;
    }));
    if (voices.some((voice) => voice.id === chosen)) $(id).value = chosen;
  }
}

// Dialogues

function addTurn(speaker, words) {
  const item = document.createElement("li");
  item.className = "turn";
  const who = document.createElement("select");
  who.setAttribute("aria-label", "Speaker");
  for (const number of [0, 1]) who.append(new Option(number ? "Second" : "First", String(number)));
  who.value = String(speaker);
  const text = document.createElement("input");
  text.setAttribute("aria-label", "Words");
  text.value = words;
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "Remove";
  remove.addEventListener("click", () => {
    item.remove();
    $("add-turn").focus();
  });
  item.append(who, text, remove);
  $("turns").append(item);
  return text;
}

function request() {
  const fields = { response_format: "pcm", speed: Number($("speed").value) || 1 };
  // A seed may have more digits than a number of JavaScript keeps.
  const seed = $("seed").value.trim();
  if (document.querySelector("input[name=kind]:checked").value === "text") {
    Object.assign(fields, { input: $("text").value, voice: $("voice").value });
  } else {
    const turns = [...document.querySelectorAll("#turns .turn")];
    const spoken = turns.map((turn) => [turn.querySelector("select").value, turn.querySelector("input").value]);
    fields.input = spoken.filter(([, words]) => words.trim())
      .map(([who, words]) => `[${who}]${words}`).join(" ");
    fields.voice = [$("voice-0").value, $("voice-1").value];
    fields.dialogue = true;
  }
  const body = JSON.stringify(fields);
  return /^[0-9]+$/.test(seed) ? body.replace(/}$/, `,"seed":${seed}}`) : body;
}

// Speech

async function speak() {
  stop();
  const mine = running = new AbortController();
  $("speak").disabled = true;
  $("stop").disabled = false;
  $("download").hidden = true;
  for (const id of ["first", "factor", "duration", "used-seed"]) $(id).textContent = "–";
  tell("status", "Waiting for the first audio…");
  player.clear();
  try {
    await player.open();
    const started = performance.now();
    const answer = await fetch("v1/audio/speech", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: request(),
      signal: mine.signal,
    });
    if (!answer.ok) throw new Error(await problem(answer));
    $("used-seed").textContent = answer.headers.get("x-csm-seed");
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const now = performance.now();
      if (!player.samples) {
        $("first").textContent = `${Math.round(now - started)} ms`;
        tell("status", "Speaking…");
      }
      player.add(value);
      $("duration").textContent = `${player.seconds.toFixed(2)} s`;
      if (player.seconds) {
        $("factor").textContent = ((now - started) / 1000 / player.seconds).toFixed(2);
      }
    }
    tell("status", "Done.");
    offer();
  } catch (error) {
    if (error.name === "AbortError") tell("status", "Stopped.");
    else tell("status", error.message, true);
    if (player.samples) offer();
  } finally {
    if (running === mine) {
      running = null;
      $("speak").disabled = false;
      $("stop").disabled = true;
    }
  }
}

function stop() {
  // Leaving the connection frees the slot on the server.
  if (running) running.abort();
  player.stop();
}

function offer() {
  URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(player.file());
  $("download").hidden = false;
}

// Voices

async function record() {
  const button = $("record");
  if (microphone.stream) {
    recorded = await microphone.stop();
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Record";
    tell("recorded", `Recorded ${microphone.seconds.toFixed(1)} seconds.`);
    $("sample").value = "";
    return;
  }
  try {
    await microphone.start();
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Stop recording";
    tell("recorded", "Recording…");
  } catch (error) {
    tell("recorded", `The microphone cannot be used: ${error.message}`, true);
  }
}

async function upload() {
  const sample = $("sample").files[0] || recorded;
  if (!sample) return tell("upload-status", "Choose a file, or record.", true);
  const form = new FormData();
  form.append("name", $("voice-name").value);
  form.append("transcript", $("transcript").value);
  form.append("consent", "The speaker agreed, says the one who uploaded this through the page.");
  form.append("audio_sample", sample, "sample.wav");
  $("send-voice").disabled = true;
  tell("upload-status", "Sending…");
  try {
    const answer = await fetch("v1/audio/voices", { method: "POST", headers: headers(), body: form });
    if (!answer.ok) throw new Error(await problem(answer));
    const made = await answer.json();
    await lists();
    $("voice").value = made.id;
    tell("upload-status", `${made.name} can speak now.`);
  } catch (error) {
    tell("upload-status", error.message, true);
  } finally {
    $("send-voice").disabled = false;
  }
}

$("speech").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) speak();
});
$("stop").addEventListener("click", stop);
$("record").addEventListener("click", record);
$("sample").addEventListener("change", () => tell("recorded", ""));
$("key").addEventListener("change", lists);
$("add-turn").addEventListener("click", () => {
  const count = document.querySelectorAll("#turns .turn").length;
  addTurn(count % 2, "").focus();
});
$("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  upload();
});
for (const choice of document.querySelectorAll("input[name=kind]")) {
  choice.addEventListener("change", () => {
    $("text-view").hidden = choice.value !== "text";
    $("dialogue-view").hidden = choice.value === "text";
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && event.ctrlKey && !running) speak();
});
addTurn(0, "How are you today?");
addTurn(1, "Fine, thank you!");
look();
