"""The report as JSON, Markdown and terminal tables."""
