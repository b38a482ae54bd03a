"""The study's report: findings become a document, the document becomes a page and its Markdown twin."""
