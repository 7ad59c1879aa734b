"""Taking over the state folder of an older agentmux, history included.

`adoption` is the whole of it. `oldtasks` and `oldlog` read what there is, as far as that can be
read (`loose`), and `adopted` tells it as events of today.
"""
