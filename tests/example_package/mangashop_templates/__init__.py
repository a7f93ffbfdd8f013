"""The manga shop's templates for mangakd. `hydra.searchpath=[pkg://mangashop_templates.conf]` makes them known."""
