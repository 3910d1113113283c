"""A machine at one instant, in a file: its format, how it is taken beside a running guest, and how it is put back."""
