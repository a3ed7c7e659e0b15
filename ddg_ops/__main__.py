"""python -m ddg_ops."""

from ddg_ops import main

main()
