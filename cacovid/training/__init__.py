"""Training of CaCoVID's policy: combinatorial policy optimisation with online combination-space sampling."""
