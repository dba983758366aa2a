// What the page says and shows, unless that is about another recording than the chosen one: answers of the server may be
// late. IDLE is replaced by what the status says at first.
(audio, status, results) => {
  const parts = new DOMParser().parseFromString(`${status}${results}`, "text/html");
  const isOther = (part) => part.dataset.recording !== audio?.path;
  return [...parts.querySelectorAll("[data-recording]")].some(isOther) ? [IDLE, ""] : [status, results];
}
