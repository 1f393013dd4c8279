"""Learning by hand: what the networks beside it do, written out without a library; docs/by_hand.md walks through it."""
