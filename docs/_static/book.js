// Search shows excerpts only where the browser may read other pages: not where the book is opened from a disk.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The search button is called by what it shows.
addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".search-button-field"))
    button.setAttribute("aria-label", button.textContent.replace(/\s+/g, " ").trim());
});
