"""The only room that knows IPython, ipywidgets and pandas."""
