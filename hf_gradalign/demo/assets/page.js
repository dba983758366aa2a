// Runs when the page opens. MAX_MB is replaced by the largest upload in megabytes.
(() => {
  const status = () => document.querySelector("#status .prose"); // without Gradio's own timer beside it

  const tell = (sentence) => {
    const line = document.createElement("p");
    line.className = "status-problem";
    line.textContent = sentence;
    status().replaceChildren(line);
  };

  // What is wrong with the files before they are sent; Gradio would say less.
  const problem = (files) => {
    if (files.length > 1) return "Please choose one recording at a time.";
    const [file] = files;
    if (!file) return null;
    if (file.size === 0) return "This file is empty (0 bytes). Please choose another one.";
    if (file.size > MAX_MB * 1e6)
      return `This file is too large (${(file.size / 1e6).toFixed(1)} MB). The page takes up to MAX_MB MB.`;
    if (!file.type.startsWith("audio/"))
      return "This does not look like an audio file. The page takes WAV, FLAC, MP3, M4A, Ogg and the like.";
    return null;
  };

  const refuse = (event, files) => {
    const sentence = problem([...(files ?? [])]);
    if (!sentence) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    tell(sentence);
  };

  document.addEventListener("drop", (event) => refuse(event, event.dataTransfer?.files), true);
  document.addEventListener(
    "change",
    (event) => {
      if (event.target.type !== "file") return;
      refuse(event, event.target.files);
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

  // Screen readers read out what changes in the status line, and nothing else.
  const waiting = setInterval(() => {
    if (!status()) return;
    clearInterval(waiting);
    status().setAttribute("role", "status");
    status().setAttribute("aria-live", "polite");
  }, 50);
})();
