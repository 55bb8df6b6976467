"""Side-by-side measurements against hardware limits and peers; `robo-rlft bench` runs them."""
