"""Where Dask workers run."""
