"""The explorer: a local web page that damages an image by hand, repairs it and predicts every task."""
