// As soon as it is imported, the SDK loads Mesh's real catalogue in a hidden
// iframe, so that Link opens faster. The sandbox has a Link of its own and
// reaches nothing outside.
window.meshLinkShouldSkipPrewarm = true;
