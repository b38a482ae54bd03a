"""What people are told of without looking: which events, in which words, to whom."""
