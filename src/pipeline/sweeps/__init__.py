"""Many runs from one command: searches with Optuna, and plain multiruns. The only room that imports Optuna.

A study is a row of numbered trials in a database, and `n_trials` is its total whoever runs them: workers of one
command, of two commands, of several machines. The plan lies in the study, so that a worker needs its name alone. It
claims the first waiting trial, or makes the next one, in one transaction (`storage`), composes its configuration as
Hydra's launcher would (`composing`), runs it (`worker`, `attempt`, `trials`), and writes its end together with the
proof that it is still the claim's owner. A trial whose worker is gone, or that was interrupted, waits again under its
own number and with its own values, and goes on from its last checkpoint; where there is none that can be read, in the
directory `NUMBER-attempt2`. Pruned and rejected trials count as done, and so do failed ones. What keeps workers alive
is an engine (`engines`).

What a trial draws depends on the study's seed and the trial's number, and, for a sampler that learns, on the trials
that were done when it was drawn: with one worker a study is the same every time, interrupted or not.

A `custom_search_space` is a function of the experiment's configuration and Optuna's trial, which has drawn
everything in `params` already. What it suggests, under the keys of the configuration, becomes overrides like the rest:

    def deeper_when_wide(config, trial):
        if trial.params["model.hidden_units"] > 64:
            trial.suggest_int("model.layers", 1, 3)

Its full name has to be allowed on the command line (`--allow my_package.deeper_when_wide`).
"""
