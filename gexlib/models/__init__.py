"""One builder a family of model. Models know no sources."""
