"""The made-up manga shop, in place of data that cannot be shipped: seeded grammars of questions, pages and answers."""
