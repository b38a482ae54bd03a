"""The images of a study: the sites' collections, the women at several sites, folds, counts."""
