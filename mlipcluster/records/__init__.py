"""What an output carries: what was asked, with which code, where, and what came out."""
