"""The site's report: `content` has the values, `page` draws them, `writing` writes page, numbers and rows."""
