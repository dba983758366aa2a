// Runs when the page opens. MAX_MB is replaced by the largest upload in megabytes.
(() => {
  // This script writes to its own line below the status, because a late answer of the server may replace the status.
  const problems = document.createElement("div");

  const tell = (sentence) => {
    const line = document.createElement("p");
    line.className = "status-problem";
    line.textContent = sentence;
    problems.replaceChildren(line);
  };

  // Browsers take these for videos, or for nothing, by their names. Recorders of browsers and phones save sound in them.
  const SOUND_BY_NAME = { webm: "webm", mkv: "webm", mp4: "mp4", mov: "mp4", "3gp": "mp4", amr: "amr", caf: "x-caf" };
  const kind = (file) => SOUND_BY_NAME[file.name.split(".").pop().toLowerCase()];
  const isSound = (file) => file.type.startsWith("audio/");

  // What is wrong with the files before they are sent; Gradio would say less.
  const problem = (files) => {
    if (files.length > 1) return "Please choose one recording at a time.";
    const [file] = files;
    if (!file) return null;
    if (file.size === 0) return "This file is empty (0 bytes). Please choose another one.";
    if (file.size > MAX_MB * 1e6)
      return `This file is too large (${(file.size / 1e6).toFixed(1)} MB). The page takes up to MAX_MB MB.`;
    if (!isSound(file) && !kind(file))
      return "This does not look like an audio file. The page takes WAV, FLAC, MP3, M4A, Ogg and the like.";
    return null;
  };

  // Gradio takes files whose type is that of sound.
  const handOver = (file) => {
    const input = document.querySelector("#recording input[type=file]");
    if (!input) return tell("Please clear the recording first."); // Gradio shows the loaded one in its place
    const transfer = new DataTransfer();
    transfer.items.add(new File([file], file.name, { type: `audio/${kind(file)}` }));
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };

  const look = (event, files) => {
    const [file] = files ?? [];
    const sentence = problem([...(files ?? [])]);
    problems.replaceChildren();
    if (!sentence && (!file || isSound(file))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (sentence) tell(sentence);
    else handOver(file);
  };

  document.addEventListener("drop", (event) => look(event, event.dataTransfer?.files), true);
  document.addEventListener(
    "change",
    (event) => {
      if (event.target.type !== "file") return;
      look(event, event.target.files);
    },
    true,
  );

  // The dialog for files offers them too.
  document.addEventListener(
    "click",
    (event) => {
      if (event.target.closest?.("button")) problems.replaceChildren();
      if (event.target.type !== "file") return;
      event.target.accept = ["audio/*", ...Object.keys(SOUND_BY_NAME).map((name) => `.${name}`)].join();
    },
    true,
  );

  // Gradio's button for uploads takes the space bar alone.
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Enter" || !event.target.matches?.("#recording button[aria-dropeffect]")) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      event.target.click();
    },
    true,
  );

  // Screen readers read out what changes in these two lines, and nothing else.
  const waiting = setInterval(() => {
    const status = document.querySelector("#status .prose"); // without Gradio's own timer beside it
    if (!status) return;
    clearInterval(waiting);
    status.after(problems);
    for (const line of [status, problems]) {
      line.setAttribute("role", "status");
      line.setAttribute("aria-live", "polite");
    }
  }, 50);
})();
