"""Governance: are the licences, terms and declarations of a run ones that somebody can answer for?"""
