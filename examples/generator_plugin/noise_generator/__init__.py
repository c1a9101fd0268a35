"""Grey noise as a generator of the harness: `harness run --benchmark adm --noise 40`."""

__version__ = "1"
