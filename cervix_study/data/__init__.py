"""The images of a study: the sites' collections, who is one woman, folds, what is counted of them."""
