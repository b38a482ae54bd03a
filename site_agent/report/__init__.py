"""The site's report: `content` says what, `page` draws it, `writing` writes page, numbers and rows."""
